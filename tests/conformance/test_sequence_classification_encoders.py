"""BERT, RoBERTa, ALBERT and DistilBERT as classifiers of texts, against transformers at batch size 1."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import BERT_SIZES, ODD_BERT_SIZES, STATES, assert_close, pad_rows

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Request
from tritone.scheduler.runner import ModelRunner

BERT = BERT_SIZES | {"num_labels": 3}
ODD_BERT = ODD_BERT_SIZES | {"type_vocab_size": 3, "num_labels": 17, "classifier_dropout": 0.3}
# A family's classes by the first part of their names, and fields that are not its defaults.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "bert-odd": ("Bert", {**ODD_BERT, "pad_token_id": None}),
    "roberta": ("Roberta", BERT | {"type_vocab_size": 2}),
    "roberta-odd": ("Roberta", {**ODD_BERT, "pad_token_id": 6}),
    "albert": ("Albert", {**BERT, "embedding_size": 13}),
    "albert-groups": (
        "Albert",
        {
            **{name: value for name, value in ODD_BERT.items() if name != "classifier_dropout"},
            "embedding_size": 50,
            "num_hidden_layers": 5,
            "num_hidden_groups": 3,
            "inner_group_num": 2,
            "hidden_act": "relu",
            "hidden_dropout_prob": 0.2,
        },
    ),
    "distilbert": (
        "DistilBert",
        {
            "vocab_size": 61,
            "dim": 36,
            "n_layers": 2,
            "n_heads": 3,
            "hidden_dim": 50,
            "max_position_embeddings": 40,
            "num_labels": 3,
        },
    ),
    "distilbert-odd": (
        "DistilBert",
        {
            "vocab_size": 83,
            "dim": 33,
            "n_layers": 3,
            "n_heads": 11,
            "hidden_dim": 17,
            "max_position_embeddings": 57,
            "activation": "relu",
            "sinusoidal_pos_embds": True,
            "pad_token_id": 6,
            "num_labels": 17,
        },
    ),
}
LENGTHS = [7, 1, 19, 16, 2, 33, 15, 12]


@dataclass(frozen=True)
class Models:
    """Both classifiers of one checkpoint that transformers wrote."""

    name: str
    own: Any
    peer: Any
    folder: Path

    def types(self, *shape: int, seed: int = 0) -> dict[str, torch.Tensor]:
        """Token types by the name of their argument; none where the family knows none."""
        if not self.own.has_token_types:
            return {}
        draws = torch.Generator().manual_seed(seed)
        return {"token_type_ids": torch.randint(0, self.own.config.type_vocab_size, shape, generator=draws)}

    def training(self, dropout: float) -> tuple[Any, Any]:
        """Both models in training, with no dropout of attention weights, and elsewhere this one."""
        chance = {
            **dict.fromkeys(("attention_probs_dropout_prob", "attention_dropout"), 0.0),
            **dict.fromkeys(("hidden_dropout_prob", "dropout", "classifier_dropout"), dropout),
            **dict.fromkeys(("classifier_dropout_prob", "seq_classif_dropout"), dropout),
        }
        fields = {name: value for name, value in chance.items() if hasattr(self.peer.config, name)}
        own, peer = (type(one).from_pretrained(self.folder, **fields) for one in (self.own, self.peer))
        return own.train(), peer.train()

    def tokens(self, *shape: int, seed: int = 0) -> torch.Tensor:
        draws = torch.Generator().manual_seed(seed)
        return torch.randint(7, self.own.config.vocab_size, shape, generator=draws)


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()


@pytest.fixture(scope="module", params=SPECS, ids=str)
def models(request, tmp_path_factory) -> Models:
    family, fields = SPECS[request.param]
    torch.manual_seed(len(request.param))
    config = getattr(transformers, f"{family}Config")(
        **fields, initializer_range=0.4, attn_implementation="eager"
    )
    peer = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    with torch.no_grad():
        for name, parameter in peer.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(std=0.3)
    folder = tmp_path_factory.mktemp(request.param)
    peer.save_pretrained(folder)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = tritone.AutoModelForSequenceClassification.from_pretrained(folder)
    return Models(family, own, peer, folder)


def close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_logits_hidden_states_and_attentions_are_those_of_transformers(models):
    assert type(models.own).__name__ == f"{models.name}ForSequenceClassification"
    assert not models.own.training
    longest = models.own.encoder_length(models.own.base.positions.limit)
    for length in (1, 11, longest):
        ids = models.tokens(1, length, seed=length)
        asked = STATES | models.types(1, length)
        ours, theirs = models.own(ids, **asked), models.peer(ids, **asked)
        assert ours.loss is None
        for name in ("logits", "hidden_states", "attentions"):
            close(getattr(ours, name), getattr(theirs, name))


@torch.no_grad()
def test_embeddings_and_positions_can_be_given_as_in_transformers(models):
    ids = models.tokens(1, 9)
    embedded = models.own.get_input_embeddings()(ids)
    close(models.own(inputs_embeds=embedded).logits, models.peer(inputs_embeds=embedded).logits)
    positions = torch.randint(0, 30, (1, 9))
    close(models.own(ids, position_ids=positions).logits, models.peer(ids, position_ids=positions).logits)
    assert isinstance(models.own(ids, return_dict=False), tuple)
    close(models.own(ids, return_dict=False)[0], models.peer(ids).logits)


@torch.no_grad()
def test_a_padding_token_that_counts_is_read_as_in_transformers(models):
    ids = models.tokens(1, 9)
    ids[0, [2, 5]] = models.own.config.pad_token_id or 0
    logits = models.own(ids).logits
    close(logits, models.peer(ids).logits)
    both = torch.cat([models.tokens(3), ids[0], ids[0]])[:, None]
    packed, _ = models.own.predict(both, cumulative([3, 9, 9]))["logits"]
    assert torch.equal(packed[1:2], logits)
    assert torch.equal(packed[2:], logits)


@pytest.mark.parametrize(
    "problem", ["regression", "single_label_classification", "multi_label_classification"]
)
@torch.no_grad()
def test_losses_of_the_three_kinds_of_problem_are_those_of_transformers(models, problem):
    ids, count = models.tokens(2, 9), models.own.config.num_labels
    labels = {
        "regression": torch.randn(2, count),
        "single_label_classification": torch.tensor([count - 1, 0]),
        "multi_label_classification": torch.randint(0, 2, (2, count)).float(),
    }[problem]
    wanted = problem if problem == "regression" else None  # else the labels tell
    models.own.config.problem_type = models.peer.config.problem_type = wanted
    ours, theirs = models.own(ids, labels=labels), models.peer(ids, labels=labels)
    torch.testing.assert_close(ours.loss, theirs.loss, atol=1e-5, rtol=1e-5)
    assert models.own.config.problem_type == models.peer.config.problem_type == problem


@pytest.mark.parametrize("side", ["right", "left"])
@torch.no_grad()
def test_a_padded_row_is_what_it_is_alone(models, side):
    rows = [models.tokens(length, seed=length) for length in LENGTHS]
    types = [models.types(length, seed=length) for length in LENGTHS]
    padded, mask = pad_rows(rows, 0, side, 35)
    given = {name: pad_rows([row[name] for row in types], 0, side, 35)[0] for name in types[0]}
    together = models.own(padded, attention_mask=mask, **given).logits
    for row, ids in enumerate(rows):
        own_types = {name: values[None] for name, values in types[row].items()}
        assert torch.equal(together[row : row + 1], models.own(ids[None], **own_types).logits)
        close(together[row : row + 1], models.peer(ids[None], **own_types).logits)


@torch.no_grad()
def test_packed_texts_have_the_same_bits_in_any_company(models):
    types = models.own.has_token_types
    texts = [
        torch.stack([models.tokens(length, seed=length), *models.types(length, seed=length).values()], dim=1)
        for length in LENGTHS
    ]
    assert texts[0].shape[1] == 1 + types
    alone = [models.own.predict(text, cumulative([len(text)]))["logits"][0] for text in texts]
    for order in ([*range(8)], [*range(8)][::-1], [3, 0, 5, 1, 7, 2, 6, 4]):
        features = torch.cat([texts[i] for i in order])
        logits, rows = models.own.predict(features, cumulative([LENGTHS[i] for i in order]))["logits"]
        assert rows.tolist() == list(range(9))
        assert torch.equal(logits, torch.cat([alone[i] for i in order]))
    given = {"token_type_ids": texts[5][None, :, 1]} if types else {}
    close(alone[5], models.peer(texts[5][None, :, 0], **given).logits)


def test_a_stream_of_texts_through_the_loop_answers_each_as_if_it_were_alone(models):
    loop = GenerationLoop(ModelRunner(models.own), encode_budget=40)
    texts = [models.tokens(length, seed=length)[:, None] for length in LENGTHS]
    for number, text in enumerate(texts):
        loop.submit(Request(number, text))
    answers = {}
    while loop.has_work:
        for event in loop.step():
            answers[event.request_id] = event.predictions["logits"]
    for number, text in enumerate(texts):
        with torch.no_grad():
            alone = models.own(text.T).logits
        assert torch.equal(answers[number], alone)


def test_gradients_are_those_of_transformers(models):
    ids, count = models.tokens(2, 9), models.own.config.num_labels
    own, peer = models.training(0.0)
    labels = torch.tensor([count - 1, 0])
    own(ids, labels=labels).loss.backward()
    peer(ids, labels=labels).loss.backward()
    theirs = dict(peer.named_parameters())
    assert theirs.keys() == dict(own.named_parameters()).keys()
    for name, parameter in own.named_parameters():
        if theirs[name].grad is None:
            assert parameter.grad is None or not parameter.grad.any()
        else:
            torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=2e-4, rtol=1e-3, msg=name)


@torch.no_grad()
def test_dropout_is_where_transformers_has_it(models):
    # That of attention weights draws in another order; elsewhere one seed gives both the same draws.
    own, peer = models.training(0.4)
    ids = models.tokens(1, 9)
    torch.manual_seed(1)
    ours = own(ids).logits
    torch.manual_seed(1)
    close(ours, peer(ids).logits)
    assert not torch.allclose(ours, models.own(ids).logits)


@torch.no_grad()
def test_what_is_saved_here_transformers_loads(models, tmp_path):
    names = {number: f"kind {number}" for number in range(models.own.config.num_labels)}
    config = type(models.own.config).from_dict(models.own.config.to_dict(), id2label=names)
    own = type(models.own).from_pretrained(models.folder, config=config)
    own.save_pretrained(tmp_path)
    peer = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    assert type(peer) is type(models.peer)
    assert peer.config.id2label == names
    for name, tensor in models.peer.state_dict().items():
        assert torch.equal(peer.state_dict()[name], tensor)
    ids = models.tokens(1, 9)
    close(peer(ids).logits, own(ids).logits)


@pytest.mark.parametrize("kind", ["Model", "ForMaskedLM"])
def test_a_checkpoint_without_the_head_gets_a_fresh_one_and_says_so(models, kind, tmp_path):
    torch.manual_seed(0)
    getattr(transformers, models.name + kind)(models.peer.config).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="fresh, train the model") as caught:
        own, report = type(models.own).from_pretrained(tmp_path, num_labels=5, output_loading_info=True)
    assert len(caught) == 1
    fresh = {name for name, _ in own.named_parameters() if name.startswith(("classifier", "pre_classifier"))}
    if kind == "ForMaskedLM" and models.name in ("Bert", "Albert"):
        fresh |= {name for name, _ in own.named_parameters() if ".pooler." in name}
    assert report["missing_keys"] == fresh
    assert not report["unexpected_keys"]
    logits = own(models.tokens(2, 9)).logits
    assert logits.shape == (2, 5)
    assert logits.isfinite().all()
    assert 0.2 < own.get_parameter(next(n for n in sorted(fresh) if n.endswith("weight"))).std() < 0.6


def test_what_older_checkpoints_hold_besides_is_passed_over(models, tmp_path):
    base = models.own.base_name
    width = models.own.get_input_embeddings().weight.shape[1]
    more = {
        "bert": {"cls.seq_relationship.weight": torch.zeros(2, width)},
        "roberta": {
            "roberta.pooler.dense.weight": torch.zeros(width, width),
            "lm_head.bias": torch.zeros(61),
        },
        "albert": {"sop_classifier.classifier.bias": torch.zeros(2)},
        "distilbert": {"vocab_projector.bias": torch.zeros(61)},
    }
    state = models.own.state_dict() | {f"{base}.embeddings.position_ids": torch.arange(40)[None]}
    models.own.save_pretrained(tmp_path, state_dict=state | more[base])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = type(models.own).from_pretrained(tmp_path)
    ids = models.tokens(1, 9)
    assert torch.equal(own(ids).logits, models.own(ids).logits)


def test_half_a_head_is_a_damaged_checkpoint(models, tmp_path):
    state = models.own.state_dict()
    head = next(name for name in state if name.startswith("classifier") and name.endswith("bias"))
    del state[head]
    models.own.save_pretrained(tmp_path, state_dict=state)
    with pytest.raises(ValueError, match=f"missing: {head}"):
        type(models.own).from_pretrained(tmp_path)


def test_more_labels_than_a_checkpoint_has_need_to_be_asked_for(models):
    count = models.own.config.num_labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(ValueError, match=rf"wrong shape: classifier.*\[{count}"):
            type(models.own).from_pretrained(models.folder, num_labels=count + 2)
        own = type(models.own).from_pretrained(
            models.folder, num_labels=count + 2, ignore_mismatched_sizes=True
        )
    assert own(models.tokens(1, 5)).logits.shape == (1, count + 2)


def test_what_does_not_fit_is_refused_with_numbers(models):
    own, limit = models.own, models.own.base.positions.limit
    with pytest.raises(ValueError, match=f"{limit + 1} tokens, and the model takes 1 to {limit}; cut"):
        own.encoder_length(limit + 1)
    with pytest.raises(ValueError, match=f"a text of 0 tokens, and the model takes 1 to {limit}; give one"):
        own.encoder_length(0)
    with pytest.raises(ValueError, match=f"{limit + 1} .*tokens, and the model has {limit} positions"):
        own(models.tokens(1, limit + 1))
    with pytest.raises(ValueError, match="attention_mask has a row without tokens"):
        own(models.tokens(2, 3), attention_mask=torch.tensor([[1, 1, 1], [0, 0, 0]]))
    most = own.config.vocab_size - 1
    with pytest.raises(ValueError, match=f"from 3 to 999, and the model knows tokens 0 to {most}"):
        own.predict(torch.tensor([[3], [999]]), cumulative([2]))
    with pytest.raises(ValueError, match=r"token ids must be \[tokens, 1\].*got \[2, 3\]"):
        own.predict(torch.zeros(2, 3, dtype=torch.int64), cumulative([2]))
    if own.has_token_types:
        with pytest.raises(ValueError, match="token_type_ids go from 0 to 9"):
            own.predict(torch.tensor([[8, 0], [8, 9]]), cumulative([2]))
        with pytest.raises(ValueError, match="token_type_ids go from 0 to 9"):
            own(torch.tensor([[8, 8]]), token_type_ids=torch.tensor([[0, 9]]))


@pytest.mark.parametrize("name", ["albert-groups", "distilbert-odd"])
@torch.no_grad()
def test_the_models_without_a_head_are_those_of_transformers(name, tmp_path):
    family, fields = SPECS[name]
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(
        **fields, initializer_range=0.4, attn_implementation="eager"
    )
    peer = getattr(transformers, f"{family}Model")(config).eval()
    peer.save_pretrained(tmp_path / "peer")
    own = getattr(tritone, f"{family}Model").from_pretrained(tmp_path / "peer")
    ids = torch.randint(7, 83, (1, 13))
    ours, theirs = own(ids, **STATES), peer(ids, **STATES)
    assert ours.keys() == list(theirs.keys())
    close(ours.to_tuple()[:-2], theirs.to_tuple()[:-2])
    padded, mask = torch.zeros(2, 15, dtype=torch.int64), torch.zeros(2, 15, dtype=torch.int64)
    padded[0, 2:], mask[0, 2:] = ids[0], 1
    padded[1, :5], mask[1, :5] = ids[0, :5], 1
    both = own(padded, attention_mask=mask)
    assert torch.equal(both.last_hidden_state[:1, 2:], own(ids).last_hidden_state)
    assert not both.last_hidden_state[1, 5:].any()
    if family == "Albert":
        assert torch.equal(both.pooler_output[:1], own(ids).pooler_output)
    own.save_pretrained(tmp_path / "own")
    back = getattr(transformers, f"{family}Model").from_pretrained(tmp_path / "own")
    assert all(torch.equal(tensor, back.state_dict()[key]) for key, tensor in peer.state_dict().items())
