"""BERT, RoBERTa, ALBERT and DistilBERT as classifiers of texts, against transformers at batch size 1."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import CHANCES, assert_close
from text_classifiers import ENCODERS, names_of

from tritone.kernels.runtime.packing import cumulative

# Chances of dropout, but for that of attention weights, which draws in another order.
DROPOUTS = [name for name in CHANCES if "drop" in name and "attention" not in name]


@pytest.fixture(params=names_of(*ENCODERS))
def both(request: pytest.FixtureRequest, classifier_of: Callable[[str], Any]) -> Any:
    return classifier_of(request.param)


@torch.no_grad()
def test_embeddings_and_positions_can_be_given_as_in_transformers(both: Any) -> None:
    ids = both.text(9)
    positions = torch.randint(0, 30, (1, 9))
    for given in (
        {"inputs_embeds": both.ours.get_input_embeddings()(ids)},
        {"input_ids": ids, "position_ids": positions},
    ):
        assert_close(both.ours(**given).logits, both.theirs(**given).logits, rtol=1e-4)


@torch.no_grad()
def test_a_padding_token_that_counts_is_read_as_in_transformers(both: Any) -> None:
    ids = both.text(9)
    ids[0, [2, 5]] = both.config.pad_token_id or 0
    logits = both.ours(ids).logits
    assert_close(logits, both.theirs(ids).logits, rtol=1e-4)
    texts = torch.cat([both.text(3)[0], ids[0], ids[0]])[:, None]
    packed, _ = both.ours.predict(texts, cumulative([3, 9, 9]))["logits"]
    assert torch.equal(packed[1:], logits.expand(2, -1))


@torch.no_grad()
def test_dropout_is_where_transformers_has_it(both: Any) -> None:
    chances = {name: 0.4 if name in DROPOUTS else 0.0 for name in CHANCES if hasattr(both.config, name)}
    ids, logits = both.text(9), []
    for model in (both.ours, both.theirs):
        trained = type(model).from_pretrained(both.folder, **chances).train()
        torch.manual_seed(1)
        logits.append(trained(ids).logits)
    assert_close(*logits, rtol=1e-4)
    assert not torch.allclose(logits[0], both.ours(ids).logits)


@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM"])
def test_a_checkpoint_without_the_head_gets_a_fresh_one_and_warns(
    both: Any, kind: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = type(both.config).from_dict(both.config.to_dict() | {"initializer_range": 0.4})
    getattr(transformers, both.family + kind)(config).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="fresh, train the model") as caught:
        ours, report = type(both.ours).from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert len(caught) == 1
    fresh = {name for name, _ in ours.named_parameters() if name.startswith(("classifier", "pre_classifier"))}
    if kind == "ForMaskedLM" and both.family in ("Bert", "Albert"):
        fresh |= {name for name, _ in ours.named_parameters() if ".pooler." in name}
    assert report["missing_keys"] == fresh
    assert not report["unexpected_keys"]
    logits = ours(both.text(9).expand(2, -1)).logits
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert 0.2 < ours.get_parameter(next(n for n in sorted(fresh) if n.endswith("weight"))).std() < 0.6


def test_what_older_checkpoints_hold_besides_is_passed_over(both: Any, tmp_path: Path) -> None:
    base = both.ours.base_name
    width = both.ours.get_input_embeddings().weight.shape[1]
    more = {
        "bert": {"cls.seq_relationship.weight": torch.zeros(2, width)},
        "roberta": {
            "roberta.pooler.dense.weight": torch.zeros(width, width),
            "lm_head.bias": torch.zeros(61),
        },
        "albert": {"sop_classifier.classifier.bias": torch.zeros(2)},
        "distilbert": {"vocab_projector.bias": torch.zeros(61)},
    }
    state = both.ours.state_dict() | {f"{base}.embeddings.position_ids": torch.arange(40)[None]}
    both.ours.save_pretrained(tmp_path, state_dict=state | more[base])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = type(both.ours).from_pretrained(tmp_path)
    ids = both.text(9)
    assert torch.equal(ours(ids).logits, both.ours(ids).logits)


def test_half_a_head_is_a_damaged_checkpoint(both: Any, tmp_path: Path) -> None:
    state = both.ours.state_dict()
    head = next(name for name in state if name.startswith("classifier") and name.endswith("bias"))
    del state[head]
    both.ours.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=f"missing: {head}"):
        type(both.ours).from_pretrained(tmp_path)


def test_what_does_not_fit_is_refused_with_numbers(both: Any) -> None:
    ours, limit = both.ours, both.ours.base.positions.limit
    with pytest.raises(ValueError, match=f"{limit + 1} tokens, and the model takes 1 to {limit}; cut"):
        ours.encoder_length(limit + 1)
    with pytest.raises(ValueError, match=f"a text of 0 tokens, and the model takes 1 to {limit}; give one"):
        ours.encoder_length(0)
    with pytest.raises(ValueError, match=f"{limit + 1} .*tokens, and the model has {limit} positions"):
        ours(both.text(limit + 1))
    with pytest.raises(ValueError, match="attention_mask has a row without tokens"):
        ours(both.text(3).expand(2, -1), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]))
    most = ours.config.vocab_size - 1
    with pytest.raises(ValueError, match=f"from 3 to 999, and the model knows tokens 0 to {most}"):
        ours.predict(torch.tensor([[3], [999]]), cumulative([2]))
    with pytest.raises(ValueError, match=r"token ids must be \[tokens, 1\].*got \[2, 3\]"):
        ours.predict(torch.zeros(2, 3, dtype=torch.int64), cumulative([2]))
    if ours.has_token_types:
        with pytest.raises(ValueError, match="token_type_ids go from 0 to 9"):
            ours.predict(torch.tensor([[8, 0], [8, 9]]), cumulative([2]))
        with pytest.raises(ValueError, match="token_type_ids go from 0 to 9"):
            ours(torch.tensor([[8, 8]]), token_type_ids=torch.tensor([[0, 9]]))
