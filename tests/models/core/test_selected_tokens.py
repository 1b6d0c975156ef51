"""Selected tokens: the last layer computes those that a classifier reads, with the same bits."""

import pytest
import torch
from text_families import classifier, tokens

from tritone.kernels.runtime.packing import cumulative

LONGER = {"max_position_embeddings": 40}
FAMILIES = {
    "bert": ("Bert", LONGER),
    "bert, causal": ("Bert", {"is_decoder": True, **LONGER}),
    "bert without layers": ("Bert", {"num_hidden_layers": 0, **LONGER}),
    "roberta": ("Roberta", LONGER),
    "albert": ("Albert", {"inner_group_num": 2, **LONGER}),
    "distilbert": ("DistilBert", LONGER),
    "gpt2": ("GPT2", {}),
    "gpt_neo": ("GPTNeo", {}),
}
LENGTHS = [7, 1, 30, 12]


@pytest.fixture(params=FAMILIES)
def model(request):
    family, fields = FAMILIES[request.param]
    return classifier(family, **fields)


@torch.inference_mode()
def test_a_selected_token_has_the_bits_that_it_has_among_all(model):
    token_ids = tokens(sum(LENGTHS))
    cu_tokens = cumulative(LENGTHS)
    whole = model.base.forward_sequences(token_ids, cu_tokens)
    selected = torch.tensor([0, 7, 20, 49, 2])
    assert torch.equal(model.base.forward_sequences(token_ids, cu_tokens, selected=selected), whole[selected])


def test_the_last_layer_maps_no_more_tokens_than_there_are_texts(model, monkeypatch):
    rows: list[int] = []
    for name in ("core.layers", "gpt2.layers"):
        module = __import__(f"tritone.models.{name}", fromlist=["linear"])
        real = module.linear

        def counted(hidden, *arguments, _real=real, **options):
            rows.append(len(hidden))
            return _real(hidden, *arguments, **options)

        monkeypatch.setattr(module, "linear", counted)
    token_ids = tokens(sum(LENGTHS), 1)
    with torch.inference_mode():
        model.predict(token_ids, cumulative(LENGTHS))
        mapped = rows.copy()
        rows.clear()
        model.classify(torch.zeros(len(LENGTHS), model.config.hidden_size))
    layers = getattr(model.config, "num_hidden_layers", 3)
    # The output of attention and both maps of the feed-forward half; in GPT-2 the first is joined to a norm.
    after_attention = 2 if model.config.model_type == "gpt2" else 3
    assert mapped.count(len(LENGTHS)) - len(rows) >= (after_attention if layers else 0)
    assert mapped.count(sum(LENGTHS)) >= after_attention * (layers - 1)
