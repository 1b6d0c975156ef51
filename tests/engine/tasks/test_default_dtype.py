"""Dtype in which an engine computes where none is given."""

import json
from pathlib import Path

import pytest
import torch
from ctranslate2_files import SIZES, ctranslate2_folder
from transformers import WhisperConfig, WhisperForConditionalGeneration

from tritone.engine.tasks.loading import default_dtype, resolve_device


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, "float16"),
        ({"dtype": "float32"}, "float16"),
        ({"dtype": "bfloat16"}, "bfloat16"),
        ({"torch_dtype": "torch.float16"}, "float16"),
    ],
)
def test_a_gpu_computes_in_the_checkpoints_half_precision_or_in_float16(
    fields: dict[str, str], wanted: str, tmp_path: Path, two_gpus: None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert default_dtype(tmp_path, "cuda:1") == wanted


def test_a_cpu_computes_in_float32_whatever_is_stored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float16"}))
    assert default_dtype(tmp_path, "cpu") == "float32"


def test_a_checkpoint_of_another_program_has_a_dtype_on_a_gpu(tmp_path: Path, two_gpus: None) -> None:
    """Its config.json is in a folder that lasts as long as the opened checkpoint."""
    state = WhisperForConditionalGeneration(WhisperConfig(vocab_size=51_864, **SIZES)).state_dict()
    del state["proj_out.weight"]
    assert default_dtype(ctranslate2_folder(tmp_path / "model", state), "cuda") == "float16"


@pytest.mark.parametrize(("device", "wrong"), [("cuda:2", "'cuda:2' is not there"), ("gpu", "'gpu' is none")])
def test_a_device_that_is_not_there_is_an_error(device: str, wrong: str, two_gpus: None) -> None:
    with pytest.raises(ValueError, match=wrong):
        resolve_device(device)
