"""All 15 classifiers against transformers: loading, training, half precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import without_chance
from text_classifiers import STACK, TINY
from torch import Tensor

import tritone

WAVES = {
    **{"conv_dim": (12, 20), "conv_kernel": (10, 8), "conv_stride": (8, 10)},
    **{"num_conv_pos_embeddings": 5, "num_conv_pos_embedding_groups": 3, "classifier_proj_size": 9},
    "use_weighted_layer_sum": True,
}
RECORDINGS = ("Hubert", "SEW", "SEWD", "UniSpeech", "UniSpeechSat", "Wav2Vec2")
# Fields that are not defaults, by the first part of the names of a family's classes.
FIELDS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(RECORDINGS, STACK | WAVES),
    **{family: fields | {"vocab_size": 40, "pad_token_id": 0} for family, fields in TINY.items()},
}
START = {"Bart": {"decoder_start_token_id": 2}, "T5": {"decoder_start_token_id": 0}}
PROBLEMS: dict[str, tuple[int, str | None, Tensor]] = {
    "classes": (4, None, torch.tensor([3, 0])),
    "several labels": (3, None, torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
    "a number": (1, None, torch.tensor([0.7, -0.4])),
    "several numbers": (2, "regression", torch.tensor([[0.3, -1.0], [1.0, 0.2]])),
}
# transformers' classifiers of recordings know classes alone.
CASES = [
    (family, problem)
    for family in FIELDS
    for problem in PROBLEMS
    if problem == "classes" or family not in RECORDINGS
]


def write(family: str, folder: Path, **fields: Any) -> Any:
    """A checkpoint with random weights that transformers writes; its model as it is loaded from there."""
    torch.manual_seed(2)
    config = getattr(transformers, f"{family}Config")(**FIELDS[family], **START.get(family, {}), **fields)
    kind = getattr(transformers, f"{family}ForSequenceClassification")
    kind(config).save_pretrained(folder)
    return kind.from_pretrained(
        folder, num_labels=config.num_labels
    )  # two are not written, BART's default is 3


def load(family: str, folder: Path, **options: Any) -> Any:
    auto = (
        tritone.AutoModelForAudioClassification
        if family in RECORDINGS
        else tritone.AutoModelForSequenceClassification
    )
    return auto.from_pretrained(folder, **options)


def inputs(family: str, config: Any) -> Tensor:
    """Two recordings or texts as long as each other, so that transformers needs no padding."""
    draw = torch.Generator().manual_seed(1)
    if family in RECORDINGS:
        return torch.randn(2, 4000, generator=draw)
    tokens = torch.randint(8, 40, (2, 11), generator=draw)
    if family in ("Bart", "T5"):
        tokens[:, -1] = config.eos_token_id
    return tokens


def test_there_are_fifteen_and_each_loads_ready_to_answer(tmp_path: Path) -> None:
    assert len(FIELDS) == 15
    for family in FIELDS:
        theirs = write(family, tmp_path / family)
        ours = load(family, tmp_path / family)
        assert type(ours).__name__ == type(theirs).__name__
        assert not any(module.training for module in ours.modules())


@pytest.mark.parametrize(("family", "problem"), CASES)
def test_steps_of_training_lower_the_loss_as_in_transformers(
    family: str, problem: str, tmp_path: Path
) -> None:
    count, kind, labels = PROBLEMS[problem]
    silent = without_chance(getattr(transformers, f"{family}Config"))
    theirs = write(family, tmp_path, num_labels=count, problem_type=kind, **silent)
    ours = load(family, tmp_path, num_labels=count)
    given = inputs(family, ours.config)
    losses = []
    for model in (ours, theirs):
        model.train()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.003)
        losses.append([])
        for _ in range(5):
            loss = model(given, labels=labels).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[-1].append(loss.item())
    mine, wanted = losses
    assert mine == pytest.approx(wanted, abs=1e-4)
    assert mine[-1] < mine[0]
    assert ours.config.problem_type == theirs.config.problem_type or family in RECORDINGS


@pytest.mark.parametrize("family", FIELDS)
def test_some_steps_with_dropout_lower_the_loss_too(family: str, tmp_path: Path) -> None:
    write(family, tmp_path, num_labels=4)
    ours = load(family, tmp_path, num_labels=4)
    given, labels = inputs(family, ours.config), torch.tensor([3, 0])
    with torch.no_grad():
        before = float(ours(given, labels=labels).loss)
    torch.manual_seed(0)
    ours.train()
    optimizer = torch.optim.Adam(ours.parameters(), lr=2e-3)
    for _ in range(12):
        optimizer.zero_grad()
        ours(given, labels=labels).loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert float(ours.eval()(given, labels=labels).loss) < before


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("family", FIELDS)
@torch.inference_mode()
def test_halves_load_with_the_types_of_transformers_and_answer_nearly_alike(
    family: str, dtype: str, tmp_path: Path
) -> None:
    write(family, tmp_path)
    theirs = type(write(family, tmp_path)).from_pretrained(tmp_path, dtype=getattr(torch, dtype))
    ours, whole = load(family, tmp_path, dtype=dtype), load(family, tmp_path)
    types = {name: tensor.dtype for name, tensor in theirs.state_dict().items()}
    if family == "XLNet":  # of which transformers leaves some in float32 by mistake, and then cannot run it
        types = dict.fromkeys(types, getattr(torch, dtype))
    assert {name: tensor.dtype for name, tensor in ours.state_dict().items()} == types
    single = {name for name, kind in types.items() if kind == torch.float32}
    # Its outputs do not fit a half, and bfloat16 has room for them.
    assert bool(single) == (family == "T5" and dtype == "float16")
    assert all(name.endswith(".wo.weight") for name in single)
    given = inputs(family, ours.config)
    halves = given.to(ours.dtype) if given.is_floating_point() else given
    logits = ours(halves).logits
    assert logits.dtype == getattr(torch, dtype)
    torch.testing.assert_close(logits.float(), whole(given).logits, atol=3e-2, rtol=3e-2)
