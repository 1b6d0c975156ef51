"""Dtype in which an engine computes where none is given."""

import json
from pathlib import Path

import pytest

from tritone.engine.tasks.loading import default_dtype


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
    fields: dict[str, str], wanted: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert default_dtype(tmp_path, "cuda:1") == wanted


def test_a_cpu_computes_in_float32_whatever_is_stored(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"dtype": "float16"}))
    assert default_dtype(tmp_path, "cpu") == "float32"
