"""ALBERT's differences from BERT; conformance with transformers is in tests/conformance."""

from functools import partial

import pytest
import torch
from text_families import SIZES, classifier

from tritone.models.albert.config import AlbertConfig
from tritone.models.albert.model import AlbertModel

TOKENS = torch.tensor([[9, 4, 8, 7, 6]])
model = partial(classifier, "Albert")


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
    output = AlbertModel(AlbertConfig(**SIZES["Albert"]), add_pooling_layer=False)(TOKENS)
    assert output.pooler_output is None
    assert output.keys() == ["last_hidden_state"]


def test_no_labels_make_no_classifier() -> None:
    with pytest.raises(ValueError, match="num_labels is 0, and a classifier needs at least one"):
        model(num_labels=0)
