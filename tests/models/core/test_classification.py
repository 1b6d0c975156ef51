"""Labels and losses against transformers, and poolings of packed sequences."""

import json
import warnings

import pytest
import torch
import transformers
from transformers.loss.loss_utils import ForSequenceClassificationLoss

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.models.core.classification import classification_loss, first_of_padded, first_token, last_indices

TINY = {
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "vocab_size": 11,
}


def configs(**fields):
    """The same configuration here and in transformers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return tritone.BertConfig(**fields), transformers.BertConfig(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"num_labels": 1},
        {"num_labels": 5},
        {"id2label": {"0": "no", "1": "yes", "2": "perhaps"}},
        {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}},
        {"label2id": {"no": 0, "yes": 1}},
        {"num_labels": 3, "id2label": {"0": "no", "1": "yes"}},
        {"num_labels": 3, "problem_type": "multi_label_classification"},
        {"num_labels": 0},
    ],
)
def test_label_maps_are_those_of_transformers(fields):
    own, peer = configs(**fields)
    assert own.num_labels == peer.num_labels
    assert own.id2label == peer.id2label
    assert own.label2id == peer.label2id
    assert own.problem_type == peer.problem_type


def test_label_maps_survive_being_written_here_and_read_there_and_back(tmp_path):
    names = {0: "down", 1: "up", 2: "left"}
    own = tritone.BertConfig(
        id2label=names, label2id={"down": 0, "up": 1, "left": 2}, problem_type="regression"
    )
    own.save_pretrained(tmp_path / "own")
    peer = transformers.BertConfig.from_pretrained(tmp_path / "own")
    assert (peer.id2label, peer.label2id, peer.problem_type) == (names, own.label2id, "regression")
    peer.save_pretrained(tmp_path / "peer")
    back = tritone.BertConfig.from_pretrained(tmp_path / "peer")
    assert (back.id2label, back.label2id, back.problem_type) == (names, own.label2id, "regression")


def test_a_model_that_is_no_classifier_writes_no_labels(tmp_path):
    tritone.BertConfig().save_pretrained(tmp_path)
    assert (
        not {"id2label", "label2id", "problem_type"}
        & json.loads((tmp_path / "config.json").read_text()).keys()
    )
    assert tritone.BertConfig.from_pretrained(tmp_path).num_labels == 2


def test_another_number_of_labels_makes_other_names_and_the_same_number_keeps_them(tmp_path):
    tritone.BertConfig(id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1}).save_pretrained(tmp_path)
    same = tritone.BertConfig.from_pretrained(tmp_path, num_labels=2)
    assert same.id2label == {0: "no", 1: "yes"}
    with pytest.warns(UserWarning, match="num_labels is 3, and id2label names 2"):
        other = tritone.BertConfig.from_pretrained(tmp_path, num_labels=3)
    assert other.label2id == {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2}
    other.num_labels = 1
    assert other.id2label == {0: "LABEL_0"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"problem_type": "guessing"}, "problem_type 'guessing' is not known; one of regression"),
        ({"num_labels": 1, "problem_type": "single_label_classification"}, "num_labels is 1; give 2"),
        ({"num_labels": 10**12}, "num_labels must be a number from 0 to 1048576"),
        ({"num_labels": "3"}, "got '3'"),
        ({"id2label": ["no", "yes"]}, "id2label must map numbers to names"),
        ({"id2label": {"first": "no"}}, "id2label must map numbers to names"),
        ({"id2label": {"0": "no"}, "label2id": ["no"]}, "label2id must map names to numbers"),
    ],
)
def test_labels_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        tritone.BertConfig(**fields)


LOSSES = {
    "one number": (1, None, torch.tensor([0.5, -1.0, 2.0])),
    "one number in a column": (1, None, torch.tensor([[0.5], [-1.0], [2.0]])),
    "several numbers": (4, "regression", torch.arange(12.0).view(3, 4)),
    "classes": (4, None, torch.tensor([3, 0, 1])),
    "classes in a column": (4, None, torch.tensor([[3], [0], [1]])),
    "short classes": (4, None, torch.tensor([3, 0, 1], dtype=torch.int32)),
    "classes left out": (4, None, torch.tensor([3, -100, 1])),
    "several labels": (4, None, torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 0]])),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_the_problem_type_that_they_settle_are_those_of_transformers(name):
    count, problem, labels = LOSSES[name]
    logits = torch.randn(3, count, generator=torch.Generator().manual_seed(1))
    own, peer = configs(num_labels=count, problem_type=problem)
    loss = classification_loss(logits, labels, own)
    # transformers' cross entropy takes int64 alone
    wanted = labels.long() if labels.dtype == torch.int32 else labels
    assert torch.equal(loss, ForSequenceClassificationLoss(wanted, logits, peer))
    assert own.problem_type == peer.problem_type


def test_one_row_of_one_number_has_a_loss_whatever_its_shape():
    for labels in (torch.tensor(2.0), torch.tensor([2.0]), torch.tensor([[2.0]])):
        config, _ = configs(num_labels=1)
        assert classification_loss(torch.tensor([[0.5]]), labels, config).item() == 2.25


def test_a_problem_type_once_settled_stays():
    config, _ = configs(num_labels=2)
    classification_loss(torch.zeros(1, 2), torch.tensor([1]), config)
    with pytest.raises(ValueError, match=r"labels are \[1, 2\], and single_label_classification of 1 rows"):
        classification_loss(torch.zeros(1, 2), torch.tensor([[0.0, 1.0]]), config)


def test_whole_numbers_serve_as_numbers_where_the_configuration_says_so():
    logits = torch.randn(2, 3)
    for problem in ("regression", "multi_label_classification"):
        config, _ = configs(num_labels=3, problem_type=problem)
        whole = torch.tensor([[1, 0, 1], [0, 0, 1]])
        assert torch.equal(
            classification_loss(logits, whole, config), classification_loss(logits, whole.float(), config)
        )


@pytest.mark.parametrize(
    ("count", "problem", "labels", "message"),
    [
        (3, None, torch.tensor([0, 3]), "labels are 0 to 3, and .* takes whole numbers from 0 to 2"),
        (3, None, torch.tensor([0, -1]), "labels are -1 to 0"),
        (3, "single_label_classification", torch.tensor([0.0, 1.0]), "takes whole numbers"),
        (3, None, torch.tensor([0]), r"labels are \[1\], .* of 2 rows with num_labels 3 takes \[2\]"),
        (3, None, torch.zeros(2, 2), r"takes \[2, 3\]"),
        (1, None, torch.zeros(3), r"regression of 2 rows with num_labels 1 takes \[2\]"),
        (1, "multi_label_classification", torch.zeros(2), r"takes \[2, 1\]"),
    ],
)
def test_labels_that_do_not_fit_are_refused(count, problem, labels, message):
    config, _ = configs(num_labels=count, problem_type=problem)
    with pytest.raises(ValueError, match=message):
        classification_loss(torch.zeros(2, count), labels, config)


LENGTHS = [3, 1, 5, 2]
PACKED = torch.randn(sum(LENGTHS), 7, generator=torch.Generator().manual_seed(2))


def test_first_and_last_tokens_are_each_sequence_s_own():
    cu_seqlens, parts = cumulative(LENGTHS), PACKED.split(LENGTHS)
    assert torch.equal(PACKED[first_token(None, None, cu_seqlens)], torch.stack([part[0] for part in parts]))
    assert torch.equal(PACKED[last_indices(cu_seqlens)], torch.stack([part[-1] for part in parts]))


def test_the_last_token_that_counts_is_found_and_without_one_the_first():
    counted = torch.tensor([1, 1, 0, 0, 0, 1, 0, 1, 0, 1, 1]).bool()
    found = PACKED[last_indices(cumulative(LENGTHS), counted)]
    assert torch.equal(found, PACKED[[1, 3, 7, 10]])


def test_a_padded_row_s_first_token_is_found_on_either_side():
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[1, 1, 0], [0, 1, 1]])
    assert torch.equal(first_of_padded(hidden, mask), torch.tensor([[0.0, 1.0], [8.0, 9.0]]))
    assert torch.equal(first_of_padded(hidden, None), hidden[:, 0])
