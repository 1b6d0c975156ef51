"""GPT-2 and GPT-Neo as classifiers of text: where a text is read, and the cache."""

from typing import Any

import pytest
import torch
from parity import assert_close

from tritone.kernels.runtime.packing import cumulative
from tritone.models.registry import families_with


@torch.inference_mode()
@pytest.mark.parametrize("both", ["gpt2", "gpt-neo"], indirect=True)
def test_a_text_is_read_where_transformers_reads_it(both: Any) -> None:
    """At the rightmost token that is not the padding token, wherever that occurs, mask or no mask."""
    tokens = both.text(12).repeat(4, 1)
    tokens[1, 9:] = 7
    tokens[2, [3, 11]] = 7
    tokens[3] = 7
    for row in tokens:
        assert_close(both.ours(row[None]).logits, both.theirs(row[None]).logits)
        logits, _ = both.ours.predict(row[:, None], cumulative([12]))["logits"]
        assert_close(logits, both.theirs(row[None]).logits)
    assert_close(both.ours(tokens).logits, both.theirs(tokens).logits)
    embedded = both.theirs.get_input_embeddings()(tokens)
    assert_close(both.ours(inputs_embeds=embedded).logits, both.theirs(inputs_embeds=embedded).logits)


@torch.inference_mode()
@pytest.mark.parametrize("both", ["gpt2", "gpt-neo"], indirect=True)
def test_a_text_may_come_in_two_calls(both: Any) -> None:
    tokens = both.text(14)
    past = both.ours(tokens[:, :9]).past_key_values
    wanted = both.theirs(tokens[:, 9:], past_key_values=both.theirs(tokens[:, :9]).past_key_values)
    assert_close(both.ours(tokens[:, 9:], past_key_values=past).logits, wanted.logits)
    assert_close(wanted.logits, both.theirs(tokens).logits)


def test_the_factory_knows_the_three_families() -> None:
    known = {family.model_type: family for family in families_with("sequence_classification")}
    assert {"gpt2", "gpt_neo", "xlnet"} <= set(known)
    for model_type in ("gpt2", "gpt_neo", "xlnet"):
        assert (
            known[model_type].load("sequence_classification").__name__.endswith("ForSequenceClassification")
        )
