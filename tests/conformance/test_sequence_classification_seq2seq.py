"""BART and T5 as classifiers of text, against transformers: logits, losses, padding, checkpoints."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import STATES, assert_close, pad_rows
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Attention

import tritone
from tritone.kernels.attention.distance_buckets import Buckets

CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "bart-odd": (
        "Bart",
        {
            "vocab_size": 41,
            "max_position_embeddings": 70,
            "d_model": 21,
            "encoder_layers": 3,
            "decoder_layers": 2,
            "encoder_attention_heads": 3,
            "decoder_attention_heads": 1,
            "encoder_ffn_dim": 11,
            "decoder_ffn_dim": 19,
        },
    ),
    "bart-scaled-untied": (
        "Bart",
        {
            "vocab_size": 30,
            "max_position_embeddings": 70,
            "d_model": 32,
            "encoder_layers": 1,
            "decoder_layers": 2,
            "encoder_attention_heads": 2,
            "decoder_attention_heads": 8,
            "encoder_ffn_dim": 7,
            "decoder_ffn_dim": 48,
            "scale_embedding": True,
            "activation_function": "relu",
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 5,
            "decoder_start_token_id": 7,
            "tie_word_embeddings": False,
            "num_labels": 4,
        },
    ),
    "t5-odd": (
        "T5",
        {
            "vocab_size": 43,
            "d_model": 21,
            "d_kv": 5,
            "d_ff": 19,
            "num_layers": 2,
            "num_decoder_layers": 3,
            "num_heads": 3,
            "relative_attention_num_buckets": 7,
            "relative_attention_max_distance": 11,
            "decoder_start_token_id": 0,
            "num_labels": 5,
        },
    ),
    "t5-gated": (
        "T5",
        {
            "vocab_size": 37,
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 40,
            "num_layers": 3,
            "num_heads": 4,
            "relative_attention_max_distance": 40,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
            "pad_token_id": 3,
            "eos_token_id": 4,
            "decoder_start_token_id": 3,
            "num_labels": 4,
        },
    ),
}
LENGTHS = (1, 2, 3, 7, 17, 20, 33, 64)


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    family: str
    folder: Path
    theirs: Any
    ours: Any

    @property
    def config(self) -> Any:
        return self.theirs.config

    def text(self, length: int, ends: int = 1) -> Tensor:
        """Token ids [1, length] with so many end tokens, the last of them last."""
        generator = torch.Generator().manual_seed(length)
        special = {self.config.eos_token_id, self.config.pad_token_id}
        plain = [token for token in range(self.config.vocab_size) if token not in special]
        drawn = torch.randint(len(plain), (1, length), generator=generator)
        ids = torch.tensor(plain)[drawn]
        ids[:, -1] = self.config.eos_token_id
        ids[:, : ends - 1] = self.config.eos_token_id
        return ids


def theirs_of(family: str, kind: str, **fields: Any) -> Any:
    """A model of transformers with random weights, no norm or bias of which is 1 or 0."""
    torch.manual_seed(1)
    config = getattr(transformers, f"{family}Config")(**fields)
    model = getattr(transformers, f"{family}{kind}")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if name.endswith("norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias") or "relative_attention_bias" in name:
                parameter.copy_(0.5 * noise)
            elif family == "Bart":
                parameter.copy_((0.7 if "embed" in name or "shared" in name else 0.25) * noise)
    return model


@pytest.fixture(scope="module")
def pair_named(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    pairs: dict[str, Pair] = {}

    def make(name: str) -> Pair:
        if name not in pairs:
            family, fields = CONFIGS[name]
            folder = tmp_path_factory.mktemp(name)
            theirs = theirs_of(family, "ForSequenceClassification", **fields)
            theirs.save_pretrained(folder)
            ours = tritone.AutoModelForSequenceClassification.from_pretrained(folder)
            assert type(ours).__name__ == type(theirs).__name__
            pairs[name] = Pair(family, folder, theirs, ours)
        return pairs[name]

    return make


@pytest.fixture(params=list(CONFIGS))
def both(request: pytest.FixtureRequest, pair_named: Callable[[str], Pair]) -> Pair:
    return pair_named(request.param)


def close(one: Any, other: Any, tolerance: float = 1e-4) -> None:
    assert_close(one, other, tolerance, tolerance)


@pytest.mark.parametrize("length", LENGTHS)
@torch.no_grad()
def test_logits_are_transformers(both: Pair, length: int) -> None:
    ids = both.text(length)
    logits = both.ours(ids).logits
    assert float(logits.std()) > 1e-3
    close(logits, both.theirs(ids).logits)
    packed, cu_rows = both.ours.predict(ids[0, :, None], torch.tensor([0, length], dtype=torch.int32))[
        "logits"
    ]
    assert cu_rows.tolist() == [0, 1]
    assert packed.dtype == torch.float32
    close(packed, logits)


@torch.no_grad()
def test_the_last_of_several_end_tokens_is_read(both: Pair) -> None:
    ids = both.text(9, ends=3)
    close(both.ours(ids).logits, both.theirs(ids).logits)
    ids = torch.cat([ids, both.text(4)[:, :2]], 1)  # and more tokens behind it
    close(both.ours(ids).logits, both.theirs(ids).logits)


@torch.no_grad()
def test_everything_else_that_is_returned_is_transformers_too(both: Pair) -> None:
    ids = both.text(19)
    both.theirs.set_attn_implementation("eager")
    ours, theirs = both.ours(ids, **STATES), both.theirs(ids, **STATES)
    assert list(ours.keys()) == list(theirs.keys())
    for name in theirs.keys() - {"logits", "past_key_values"}:
        close(ours[name], theirs[name])
    caches = theirs.past_key_values
    for layer, pairs in enumerate(ours.past_key_values):
        own, cross = caches.self_attention_cache.layers[layer], caches.cross_attention_cache.layers[layer]
        close(pairs, (own.keys, own.values, cross.keys, cross.values))
    plain = both.ours(ids, return_dict=False, use_cache=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], ours.logits)


@torch.no_grad()
def test_decoder_inputs_of_the_callers_own_are_read(both: Pair) -> None:
    ids, own = both.text(7), both.text(8)[:, :7]
    logits = both.ours(ids, decoder_input_ids=own).logits
    close(logits, both.theirs(ids, decoder_input_ids=own).logits)
    assert not torch.allclose(logits, both.ours(ids).logits, atol=1e-3)
    encoded = both.ours.get_encoder()(ids)
    close(both.ours(ids, decoder_input_ids=own, encoder_outputs=encoded).logits, logits)
    vectors = both.theirs.get_decoder().embed_tokens(own)
    close(both.ours(ids, decoder_inputs_embeds=vectors).logits, logits)


@pytest.mark.parametrize(
    "kind", [None, "regression", "single_label_classification", "multi_label_classification"]
)
def test_losses_are_transformers(both: Pair, kind: str | None) -> None:
    ids, count = torch.cat([both.text(6), both.text(6, ends=1).flip(1).roll(-1, 1)]), both.config.num_labels
    numbers = torch.rand(2, count, generator=torch.Generator().manual_seed(0)).round()
    classes = torch.tensor([count - 1, 0])
    for labels in {None: (classes, numbers), "single_label_classification": (classes,)}.get(kind, (numbers,)):
        for model in (both.ours, both.theirs):
            model.config.problem_type = kind
        ours, theirs = both.ours(ids, labels=labels), both.theirs(ids, labels=labels)
        close(ours.loss, theirs.loss)
        assert both.ours.config.problem_type == both.theirs.config.problem_type
        assert ours.past_key_values is None


@pytest.mark.parametrize("family", ["Bart", "T5"])
def test_one_label_is_a_number(family: str, tmp_path: Path) -> None:
    name = "bart-odd" if family == "Bart" else "t5-gated"
    theirs = theirs_of(family, "ForSequenceClassification", **{**CONFIGS[name][1], "num_labels": 1})
    theirs.save_pretrained(tmp_path)
    ours = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    both = Pair(family, tmp_path, theirs, ours)
    ids, labels = torch.cat([both.text(5), both.text(5)[:, [1, 0, 2, 3, 4]]]), torch.tensor([0.5, -2.0])
    close(ours(ids, labels=labels).loss, theirs(ids, labels=labels).loss)
    assert ours.config.problem_type == "regression"


@torch.no_grad()
def test_a_text_in_a_batch_has_the_logits_it_has_alone(both: Pair) -> None:
    texts = [both.text(length) for length in LENGTHS]
    alone = [both.ours(text) for text in texts]
    for side in ("right", "left"):
        ids, mask = pad_rows([text[0] for text in texts], both.config.pad_token_id, side)
        for order in (range(8), [5, 7, 0, 6, 1, 4, 2, 3]):
            batch = both.ours(ids[list(order)], attention_mask=mask[list(order)])
            for row, index in enumerate(order):
                assert torch.equal(batch.logits[row], alone[index].logits[0]), (side, index)
                encoded = batch.encoder_last_hidden_state[row][mask[index].bool()]
                assert torch.equal(encoded, alone[index].encoder_last_hidden_state[0])
    ids, mask = pad_rows([text[0] for text in texts], both.config.pad_token_id, "right")
    close(both.ours(ids, attention_mask=mask).logits, both.theirs(ids, attention_mask=mask).logits)


@torch.no_grad()
def test_a_packed_text_has_the_bits_it_has_alone(both: Pair) -> None:
    texts = [both.text(length)[0, :, None] for length in LENGTHS]

    def run(order: list[int]) -> Tensor:
        counts = torch.tensor([0, *(len(texts[index]) for index in order)])
        packed = torch.cat([texts[index] for index in order])
        logits, cu_rows = both.ours.predict(packed, counts.cumsum(0).int())["logits"]
        assert cu_rows.tolist() == list(range(len(order) + 1))
        return logits

    alone = torch.cat([run([index]) for index in range(8)])
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 3, 5, 1, 0, 6, 2, 4], [6, 2]):
        assert torch.equal(run(order), alone[order])


@torch.no_grad()
def test_what_is_saved_here_loads_in_transformers(both: Pair, tmp_path: Path) -> None:
    both.ours.save_pretrained(tmp_path)
    theirs = type(both.theirs).from_pretrained(tmp_path).eval()
    ours = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert theirs.config.id2label == both.theirs.config.id2label == ours.config.id2label
    ids = both.text(20)
    expected = both.ours(ids).logits
    assert torch.equal(ours(ids).logits, expected)
    close(theirs(ids).logits, expected)


@pytest.mark.parametrize("safe", [True, False])
@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for name in CONFIGS for kind in ("Model", "ForConditionalGeneration")]
)
@torch.no_grad()
def test_checkpoints_without_the_head_load_and_warn(name: str, kind: str, safe: bool, tmp_path: Path) -> None:
    family, fields = CONFIGS[name]
    theirs = theirs_of(family, kind, **fields)
    if safe:
        theirs.save_pretrained(tmp_path)
    else:  # with every name of a tied tensor, as older checkpoints have them
        theirs.config.save_pretrained(tmp_path)
        torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.warns(UserWarning, match="classification_head"):
        ours = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    ids = torch.tensor([[6, 8, 9, fields.get("eos_token_id", 1)]])
    encoder = theirs.get_encoder()
    close(ours.get_encoder()(ids).last_hidden_state, encoder(ids).last_hidden_state)
    bare = getattr(tritone, f"{family}Model").from_pretrained(tmp_path)
    inner = theirs if kind == "Model" else getattr(theirs, "model", theirs)
    if kind == "Model" or family == "Bart":
        given = {"input_ids": ids, "decoder_input_ids": ids.flip(1)}
        close(bare(**given).last_hidden_state, inner(**given).last_hidden_state)


@pytest.mark.parametrize("both_directions", [True, False])
@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (7, 11), (32, 40), (64, 1000), (4, 3)])
def test_distances_share_biases_as_in_transformers(count: int, farthest: int, both_directions: bool) -> None:
    distance = torch.arange(-farthest, farthest + 1)
    expected = T5Attention._relative_position_bucket(-distance, both_directions, count, farthest)
    rows = Buckets(count, farthest, both_directions).rows(torch.device("cpu"))
    assert torch.equal(rows, expected)
    beyond = T5Attention._relative_position_bucket(
        torch.tensor([-9999, 9999]), both_directions, count, farthest
    )
    assert beyond.tolist() == [int(rows[-1]), int(rows[0])]


@torch.no_grad()
def test_bart_alone_reads_its_input_shifted_right(pair_named: Callable[[str], Pair]) -> None:
    both = pair_named("bart-odd")
    ids = both.text(9)
    close(both.ours.model(ids).last_hidden_state, both.theirs.model(ids).last_hidden_state)


@torch.no_grad()
def test_two_labels_of_bart_are_asked_for_by_number_and_written(tmp_path: Path) -> None:
    """transformers leaves them out of config.json, where three are BART's default, and needs the same."""
    theirs = theirs_of("Bart", "ForSequenceClassification", **{**CONFIGS["bart-odd"][1], "num_labels": 2})
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tritone.BartForSequenceClassification.from_pretrained(tmp_path / "theirs", num_labels=2)
    ours.save_pretrained(tmp_path / "ours")
    again = tritone.BartForSequenceClassification.from_pretrained(tmp_path / "ours")
    ids = torch.tensor([[0, 7, 9, 2]])
    expected = theirs(ids).logits
    for model in (ours, again, type(theirs).from_pretrained(tmp_path / "ours").eval()):
        assert model.config.num_labels == 2
        close(model(ids).logits, expected)


@pytest.mark.parametrize("name", ["t5-odd", "t5-gated"])
@torch.no_grad()
def test_one_weight_of_t5_stays_in_float32(name: str, pair_named: Callable[[str], Pair]) -> None:
    both = pair_named(name)
    ours = tritone.T5ForSequenceClassification.from_pretrained(both.folder, dtype="float16")
    theirs = transformers.T5ForSequenceClassification.from_pretrained(both.folder, dtype=torch.float16).eval()
    types = {key: tensor.dtype for key, tensor in theirs.state_dict().items()}
    assert {key: tensor.dtype for key, tensor in ours.state_dict().items()} == types
    assert {key for key, kind in types.items() if kind == torch.float32} == {
        key for key in types if key.endswith(".wo.weight")
    }
    weight = ours.state_dict()["transformer.encoder.block.0.layer.1.DenseReluDense.wo.weight"]
    assert torch.equal(
        weight, both.ours.state_dict()["transformer.encoder.block.0.layer.1.DenseReluDense.wo.weight"]
    )
    ids = both.text(20)
    mine, its = ours(ids, output_hidden_states=True), theirs(ids, output_hidden_states=True)
    assert mine.logits.dtype == torch.float16
    for one, other in zip(mine.decoder_hidden_states, its.decoder_hidden_states, strict=True):
        assert one.dtype == other.dtype
    close(mine.logits.float(), both.ours(ids).logits, 2e-2)
    close(mine.logits, its.logits, 2e-2)


@torch.no_grad()
def test_what_overflows_a_half_stays_finite_as_in_transformers(pair_named: Callable[[str], Pair]) -> None:
    both = pair_named("t5-odd")
    state = {key: tensor.clone() for key, tensor in both.theirs.state_dict().items()}
    state["transformer.encoder.block.0.layer.0.SelfAttention.o.weight"] *= 1e4
    state["transformer.encoder.block.0.layer.0.SelfAttention.v.weight"] *= 1e2
    ours = tritone.T5ForSequenceClassification.from_pretrained(
        None, config=both.ours.config, state_dict=state, dtype="float16"
    )
    theirs = (
        type(both.theirs)
        .from_pretrained(None, config=both.theirs.config, state_dict=state, dtype=torch.float16)
        .eval()
    )
    ids = both.text(20)
    mine = ours.get_encoder()(ids, output_hidden_states=True)
    its = theirs.get_encoder()(ids, output_hidden_states=True)
    assert float(its.hidden_states[1].abs().max()) > 60000
    assert bool(mine.last_hidden_state.isfinite().all())
    close(mine.last_hidden_state, its.last_hidden_state, 2e-2)


def test_gradients_are_transformers(both: Pair) -> None:
    ids, labels = both.text(13), torch.tensor([1])
    for model in (both.ours, both.theirs):
        model.config.problem_type = None
        model.zero_grad()
        model(ids, labels=labels).loss.backward()
    theirs = dict(both.theirs.named_parameters())
    read = 0
    for name, parameter in both.ours.named_parameters():
        grad = theirs[name].grad
        if grad is None:
            assert parameter.grad is None, name
            continue
        assert parameter.grad is not None, name
        close(parameter.grad, grad)
        read += 1
    assert read > 20
