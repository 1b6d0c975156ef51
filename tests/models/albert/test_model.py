"""ALBERT's differences from BERT; conformance with transformers is in tests/conformance."""

from typing import Any

import pytest
import torch

import tritone
from tritone.models.albert.config import AlbertConfig
from tritone.models.albert.model import AlbertForSequenceClassification, AlbertModel

SMALL: dict[str, Any] = {
    "vocab_size": 31,
    "embedding_size": 10,
    "hidden_size": 24,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "max_position_embeddings": 12,
    "initializer_range": 0.3,
}
TOKENS = torch.tensor([[9, 4, 8, 7, 6]])


def model(**fields: Any) -> AlbertForSequenceClassification:
    torch.manual_seed(0)
    return AlbertForSequenceClassification(AlbertConfig(**{**SMALL, **fields})).eval()


def test_layers_of_a_group_are_the_same_weights_again_and_again() -> None:
    shared = model(num_hidden_groups=2, inner_group_num=2)
    stack = list(shared.albert.layer_stack)
    first, second = (list(group.albert_layers) for group in shared.albert.encoder.albert_layer_groups)
    assert [id(layer) for layer in stack] == [id(layer) for layer in (first + first + second + second)]
    assert (
        shared.num_parameters()
        == model(num_hidden_groups=2, inner_group_num=2, num_hidden_layers=8).num_parameters()
    )


def test_layers_that_do_not_divide_among_the_groups_go_where_transformers_sends_them() -> None:
    stack = model(num_hidden_layers=5, num_hidden_groups=3).albert
    groups = [group.albert_layers[0] for group in stack.encoder.albert_layer_groups]
    assert [next(i for i, one in enumerate(groups) if one is layer) for layer in stack.layer_stack] == [
        *(0, 0, 1, 1, 2)
    ]


def test_dropout_of_embeddings_comes_before_they_are_widened() -> None:
    training = model(hidden_dropout_prob=0.5).albert.train()
    rows = torch.arange(5)
    narrow = training.embeddings(TOKENS[0], rows)
    widen = training.encoder.embedding_hidden_mapping_in
    torch.manual_seed(5)
    embedded = training.embed(TOKENS[0], rows)
    torch.manual_seed(5)
    torch.testing.assert_close(embedded, widen(torch.nn.functional.dropout(narrow, 0.5)))


def test_embeddings_that_are_given_have_the_narrow_width() -> None:
    narrow = torch.randn(1, 5, 10)
    assert model()(inputs_embeds=narrow).logits.shape == (1, 2)
    with pytest.raises(ValueError, match=r"inputs_embeds must be \[batch, tokens, 10\]"):
        model()(inputs_embeds=torch.randn(1, 5, 24))


def test_without_a_pooler_there_is_no_pooled_output() -> None:
    output = AlbertModel(AlbertConfig(**SMALL), add_pooling_layer=False)(TOKENS)
    assert output.pooler_output is None
    assert output.keys() == ["last_hidden_state"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_attention_heads": 5}, "num_attention_heads 5 must divide hidden_size 24"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        ({"num_hidden_groups": 0}, "num_hidden_groups must be at least 1, got 0"),
        ({"inner_group_num": 0}, "inner_group_num must be at least 1, got 0"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        AlbertConfig(**{**SMALL, **fields})


def test_no_labels_make_no_classifier() -> None:
    with pytest.raises(ValueError, match="num_labels is 0, and a classifier needs at least one"):
        model(num_labels=0)


def test_the_factories_know_it() -> None:
    config = tritone.AutoConfig.for_model("albert", **SMALL, num_labels=4)
    made = tritone.AutoModelForSequenceClassification.from_config(config)
    assert type(made) is AlbertForSequenceClassification
    assert made(TOKENS).logits.shape == (1, 4)
