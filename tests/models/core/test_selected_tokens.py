"""Selected tokens: the last layer computes those that a classifier reads, with the same bits."""

import pytest
import torch

import tritone
from tritone.kernels.runtime.packing import cumulative

SIZES = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 48}
GPT2 = {"n_embd": 24, "n_layer": 3, "n_head": 2}
FAMILIES = {
    "bert": tritone.BertConfig(vocab_size=50, **SIZES),
    "bert, causal": tritone.BertConfig(vocab_size=50, is_decoder=True, **SIZES),
    "bert without layers": tritone.BertConfig(vocab_size=50, **SIZES | {"num_hidden_layers": 0}),
    "roberta": tritone.RobertaConfig(vocab_size=50, **SIZES),
    "albert": tritone.AlbertConfig(vocab_size=50, embedding_size=16, inner_group_num=2, **SIZES),
    "distilbert": tritone.DistilBertConfig(vocab_size=50, dim=24, hidden_dim=48, n_layers=3, n_heads=2),
    "gpt2": tritone.GPT2Config(vocab_size=50, pad_token_id=0, **GPT2),
    "gpt_neo": tritone.GPTNeoConfig(
        vocab_size=50,
        hidden_size=24,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        window_size=3,
        pad_token_id=0,
    ),
}
LENGTHS = [7, 1, 30, 12]


@pytest.fixture(params=FAMILIES)
def model(request):
    torch.manual_seed(0)
    return tritone.AutoModelForSequenceClassification.from_config(FAMILIES[request.param]).eval()


@torch.inference_mode()
def test_a_selected_token_has_the_bits_that_it_has_among_all(model):
    token_ids = torch.randint(3, 50, (sum(LENGTHS),), generator=torch.Generator().manual_seed(1))
    cu_tokens = cumulative(LENGTHS)
    whole = model.base.forward_sequences(token_ids, cu_tokens)
    selected = torch.tensor([0, 7, 20, 49, 2])
    assert torch.equal(model.base.forward_sequences(token_ids, cu_tokens, selected=selected), whole[selected])


def test_the_last_layer_maps_no_more_tokens_than_there_are_texts(model, monkeypatch):
    rows: list[int] = []
    modules = (
        "core.layers",
        "bert.layers",
        "distilbert.model",
        "albert.model",
        "gpt2.layers",
        "gpt_neo.model",
    )
    for name in modules:
        module = __import__(f"tritone.models.{name}", fromlist=["linear"])
        real = module.linear

        def counted(hidden, *arguments, _real=real, **options):
            rows.append(len(hidden))
            return _real(hidden, *arguments, **options)

        monkeypatch.setattr(module, "linear", counted)
    token_ids = torch.randint(3, 50, (sum(LENGTHS), 1), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        model.predict(token_ids, cumulative(LENGTHS))
    layers = getattr(model.config, "num_hidden_layers", 3)
    after_attention = 3  # the output of attention, and both maps of the feed-forward half
    assert rows.count(len(LENGTHS)) >= (after_attention if layers else 0)
    assert rows.count(sum(LENGTHS)) >= after_attention * (layers - 1)
