"""GPT-2, GPT-Neo and XLNet as classifiers of text, against transformers at batch size 1."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import STATES, assert_close, assert_fields_close, draw_weights, pad_rows
from torch import Tensor

import tritone
from tritone.kernels.runtime.packing import cumulative
from tritone.models.registry import families_with
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Request, RequestOutput
from tritone.scheduler.runner import ModelRunner

GPT2 = {"vocab_size": 61, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 150}
GPT_NEO = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_layers": 3,
    "attention_types": [[["local", "global", "local"], 1]],
    "num_heads": 3,
    "intermediate_size": 50,
    "window_size": 5,
    "max_position_embeddings": 150,
}
XLNET = {"vocab_size": 61, "d_model": 36, "n_layer": 2, "n_head": 3, "d_inner": 50}
# A family's name in its classes, and fields that are not its defaults.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": ("GPT2", {**GPT2, "pad_token_id": 7, "num_labels": 5}),
    "gpt2-odd": (
        "GPT2",
        {
            **GPT2,
            "n_embd": 33,
            "n_head": 11,
            "n_inner": 23,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
            "pad_token_id": 0,
        },
    ),
    "gpt-neo": ("GPTNeo", {**GPT_NEO, "pad_token_id": 7, "num_labels": 5}),
    "gpt-neo-odd": (
        "GPTNeo",
        {
            **GPT_NEO,
            "hidden_size": 33,
            "num_heads": 11,
            "intermediate_size": None,
            "num_layers": 4,
            "attention_types": [[["global", "local"], 1], [["local"], 2]],
            "window_size": 1,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
            "pad_token_id": 0,
        },
    ),
    "gpt-neo-global": (
        "GPTNeo",
        {**GPT_NEO, "attention_types": [[["global"], 3]], "pad_token_id": 7, "num_labels": 1},
    ),
    "xlnet": ("XLNet", {**XLNET, "num_labels": 5}),
    "xlnet-odd": (
        "XLNet",
        {
            **XLNET,
            "d_model": 66,
            "n_head": 11,
            "attn_type": "uni",
            "clamp_len": 6,
            "ff_activation": "relu",
            "summary_activation": "",
            "layer_norm_eps": 1e-3,
            "mem_len": 4,
            "reuse_len": 7,
        },
    ),
    "xlnet-mean-clamped": (
        "XLNet",
        {
            **XLNET,
            "clamp_len": 3,
            "summary_type": "mean",
            "summary_activation": "gelu",
            "mem_len": None,
            "num_labels": 1,
        },
    ),
    "xlnet-first-no-proj": (
        "XLNet",
        {**XLNET, "n_head": 1, "summary_type": "first", "summary_use_proj": False, "use_mems_eval": False},
    ),
    "xlnet-itself-alone": (
        "XLNet",
        {**XLNET, "attn_type": "uni", "same_length": True, "summary_type": "cls_index"},
    ),
}
LENGTHS = [9, 1, 40, 2, 17, 130, 16, 5]


@dataclass(frozen=True)
class Models:
    """One checkpoint in both libraries."""

    folder: Path
    theirs: Any
    ours: Any

    @property
    def is_xlnet(self) -> bool:
        return self.theirs.config.model_type == "xlnet"

    def tokens(self, count: int) -> Tensor:
        """Tokens [1, count], different for every count, none of them the padding token."""
        draw = torch.Generator().manual_seed(count)
        return torch.randint(8, self.theirs.config.vocab_size, (1, count), generator=draw)

    def types(self, count: int) -> Tensor:
        """Token types [1, count]: two texts, a separator and a class token, as XLNet has them."""
        types = torch.zeros(1, count, dtype=torch.int64)
        types[0, count // 2 :] = 1
        types[0, count - count // 4 :] = 2
        types[0, -1] = 3
        return types


@pytest.fixture(scope="module")
def made() -> dict[str, Models]:
    return {}


@pytest.fixture(params=list(SPECS))
def models(request: pytest.FixtureRequest, made: Any, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Each checkpoint of `SPECS` in both libraries, written by transformers. Leave them as they are."""
    name = request.param
    if name not in made:
        folder = tmp_path_factory.mktemp(name)
        family, given = SPECS[name]
        config = getattr(transformers, f"{family}Config")(**given)
        torch.manual_seed(sum(map(ord, name)))
        model = getattr(transformers, f"{family}ForSequenceClassification")(config)
        draw_weights(model)
        model.save_pretrained(folder)
        theirs = type(model).from_pretrained(folder, attn_implementation="eager").eval()
        ours = tritone.AutoModelForSequenceClassification.from_pretrained(folder)
        assert type(ours).__name__ == type(theirs).__name__
        made[name] = Models(folder, theirs, ours)
    return made[name]


@torch.inference_mode()
@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
@pytest.mark.parametrize("count", [1, 13])
def test_every_field_agrees_by_name_and_as_a_tuple(models: Models, count: int, typed: bool) -> None:
    tokens = models.tokens(count)
    given = {"token_type_ids": models.types(count), **STATES} if typed else STATES
    wanted = models.theirs(tokens, **given)
    assert {"logits", "hidden_states", "attentions"} <= set(wanted)
    assert_fields_close(models.ours(tokens, **given), wanted)
    assert_close(
        models.ours(tokens, **given, return_dict=False), models.theirs(tokens, **given, return_dict=False)
    )


@torch.inference_mode()
@pytest.mark.parametrize("count", LENGTHS)
def test_logits_agree_at_every_length(models: Models, count: int) -> None:
    tokens = models.tokens(count)
    assert_close(models.ours(tokens).logits, models.theirs(tokens).logits)


@torch.inference_mode()
def test_a_packed_text_answers_as_transformers_does(models: Models) -> None:
    for count in (1, 2, 23):
        features = torch.stack([models.tokens(count)[0], models.types(count)[0]], 1)
        cu_tokens = cumulative([count])
        wanted = models.theirs(models.tokens(count), token_type_ids=models.types(count)).logits
        logits, cu_rows = models.ours.predict(features, cu_tokens)["logits"]
        assert_close(logits, wanted)
        assert cu_rows.tolist() == [0, 1]
        assert_close(
            models.ours.predict(features[:, :1], cu_tokens)["logits"][0],
            models.theirs(models.tokens(count)).logits,
        )


PROBLEMS = {
    "regression": (1, torch.tensor([0.3])),
    "regression of several": (3, torch.tensor([[0.3, -1.0, 2.0]])),
    "classes": (3, torch.tensor([2])),
    "several labels": (3, torch.tensor([[1.0, 0.0, 1.0]])),
}


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("name", ["gpt2", "gpt-neo", "xlnet"])
def test_losses_and_gradients_agree(name: str, problem: str, tmp_path: Path) -> None:
    family, given = SPECS[name]
    count, labels = PROBLEMS[problem]
    kind = "regression" if problem == "regression of several" else None
    config = getattr(transformers, f"{family}Config")(**{**given, "num_labels": count, "problem_type": kind})
    torch.manual_seed(3)
    theirs = getattr(transformers, f"{family}ForSequenceClassification")(config).eval()
    draw_weights(theirs)
    theirs.save_pretrained(tmp_path)
    ours = getattr(tritone, f"{family}ForSequenceClassification").from_pretrained(tmp_path)
    tokens = torch.randint(8, 61, (1, 11))
    types = {"token_type_ids": torch.tensor([[0] * 6 + [1] * 4 + [2]])}
    wanted, output = theirs(tokens, labels=labels, **types), ours(tokens, labels=labels, **types)
    assert_close(output.loss, wanted.loss)
    assert ours.config.problem_type == theirs.config.problem_type
    wanted.loss.backward()
    output.loss.backward()
    peers = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        if peers[name].grad is None:
            assert parameter.grad is None, name
        else:
            assert_close(parameter.grad, peers[name].grad)


def packed(models: Models, lengths: list[int], typed: bool) -> list[Tensor]:
    """Logits of each of these texts in one packed batch."""
    columns = [torch.cat([models.tokens(count)[0] for count in lengths])]
    if typed:
        columns.append(torch.cat([models.types(count)[0] for count in lengths]))
    logits, cu_rows = models.ours.predict(torch.stack(columns, 1), cumulative(lengths))["logits"]
    assert logits.dtype == torch.float32
    assert cu_rows.tolist() == list(range(len(lengths) + 1))
    return list(logits)


@torch.inference_mode()
@pytest.mark.parametrize("typed", [False, True], ids=["plain", "typed"])
def test_a_text_has_the_same_bits_alone_and_anywhere_in_a_batch(models: Models, typed: bool) -> None:
    alone = [packed(models, [count], typed)[0] for count in LENGTHS]
    for order in ([0, 1, 2, 3, 4, 5, 6, 7], [7, 6, 5, 4, 3, 2, 1, 0], [3, 5, 1, 7, 0, 2, 6, 4], [4, 1]):
        rows = packed(models, [LENGTHS[index] for index in order], typed)
        for index, row in zip(order, rows, strict=True):
            assert torch.equal(row, alone[index])


@torch.inference_mode()
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_on_either_side_changes_no_bit(models: Models, side: str) -> None:
    padding = models.ours.config.pad_token_id
    tokens, mask = pad_rows([models.tokens(count)[0] for count in LENGTHS], padding, side)
    types, _ = pad_rows([models.types(count)[0] for count in LENGTHS], 3, side)
    output = models.ours(tokens, attention_mask=mask, token_type_ids=types, **STATES)
    for row, count in enumerate(LENGTHS):
        alone = models.ours(models.tokens(count), token_type_ids=models.types(count), **STATES)
        there = mask[row].bool()
        assert torch.equal(output.logits[row], alone.logits[0])
        assert torch.equal(output.hidden_states[-1][row, there], alone.hidden_states[-1][0])
        assert torch.equal(output.attentions[0][row][:, there][:, :, there], alone.attentions[0][0])
        logits = models.ours.predict(
            torch.stack([models.tokens(count)[0], models.types(count)[0]], 1), cumulative([count])
        )["logits"][0]
        assert torch.equal(logits, alone.logits)


@torch.inference_mode()
def test_what_is_saved_here_loads_in_transformers(models: Models, tmp_path: Path) -> None:
    models.ours.save_pretrained(tmp_path)
    theirs = type(models.theirs).from_pretrained(tmp_path, attn_implementation="eager").eval()
    for name, tensor in models.theirs.state_dict().items():
        assert torch.equal(theirs.state_dict()[name], tensor), name
    assert theirs.config.num_labels == models.theirs.config.num_labels
    tokens = models.tokens(9)
    assert torch.equal(theirs(tokens).logits, models.theirs(tokens).logits)
    again = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(again(tokens).logits, models.ours(tokens).logits)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["GPT2", "GPTNeo", "XLNet"])
def test_the_model_without_a_head_reads_a_classifiers_checkpoint(name: str, tmp_path: Path) -> None:
    given = {"GPT2": GPT2, "GPTNeo": GPT_NEO, "XLNet": XLNET}[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**given)
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    draw_weights(model)
    model.save_pretrained(tmp_path)
    theirs = getattr(transformers, f"{name}Model").from_pretrained(tmp_path, attn_implementation="eager")
    theirs.eval()
    ours = getattr(tritone, f"{name}Model").from_pretrained(tmp_path)
    tokens = torch.randint(0, 61, (1, 19))
    assert_fields_close(ours(tokens, **STATES), theirs(tokens, **STATES))


@torch.inference_mode()
@pytest.mark.parametrize("models", ["gpt2", "gpt-neo"], indirect=True)
def test_a_text_is_read_where_transformers_reads_it(models: Models) -> None:
    """At the rightmost token that is not the padding token, wherever that occurs, mask or no mask."""
    tokens = models.tokens(12).repeat(4, 1)
    tokens[1, 9:] = 7
    tokens[2, [3, 11]] = 7
    tokens[3] = 7
    for row in tokens:
        assert_close(models.ours(row[None]).logits, models.theirs(row[None]).logits)
        logits, _ = models.ours.predict(row[:, None], cumulative([12]))["logits"]
        assert_close(logits, models.theirs(row[None]).logits)
    assert_close(models.ours(tokens).logits, models.theirs(tokens).logits)
    embedded = models.theirs.get_input_embeddings()(tokens)
    assert_close(models.ours(inputs_embeds=embedded).logits, models.theirs(inputs_embeds=embedded).logits)


@torch.inference_mode()
@pytest.mark.parametrize("models", ["gpt2", "gpt-neo"], indirect=True)
def test_a_text_may_come_in_two_calls(models: Models) -> None:
    tokens = models.tokens(14)
    past = models.ours(tokens[:, :9]).past_key_values
    wanted = models.theirs(tokens[:, 9:], past_key_values=models.theirs(tokens[:, :9]).past_key_values)
    assert_close(models.ours(tokens[:, 9:], past_key_values=past).logits, wanted.logits)
    assert_close(wanted.logits, models.theirs(tokens).logits)


@torch.inference_mode()
def test_requests_in_a_loop_get_the_bits_that_they_get_alone(models: Models) -> None:
    texts = [torch.stack([models.tokens(count)[0], models.types(count)[0]], 1) for count in LENGTHS]
    loop = GenerationLoop(ModelRunner(models.ours), encode_budget=60)
    for index, text in enumerate(texts):
        loop.submit(Request(index, text))
    answers: dict[int, Tensor] = {}
    for _ in range(100):
        if not loop.has_work:
            break
        for event in loop.step():
            assert isinstance(event, RequestOutput)
            assert event.error is None
            assert event.predictions is not None
            answers[event.request_id] = event.predictions["logits"]
    for index, text in enumerate(texts):
        alone = models.ours.predict(text, cumulative([len(text)]))["logits"][0]
        assert torch.equal(answers[index], alone)


def test_the_factory_knows_the_three_families() -> None:
    known = {family.model_type: family for family in families_with("sequence_classification")}
    assert {"gpt2", "gpt_neo", "xlnet"} <= set(known)
    for model_type in ("gpt2", "gpt_neo", "xlnet"):
        assert (
            known[model_type].load("sequence_classification").__name__.endswith("ForSequenceClassification")
        )
