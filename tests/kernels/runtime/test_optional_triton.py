"""A process in which Triton cannot be imported: CPU tensors need none, and a launch says so."""

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ImportError("blocked by a test")

sys.meta_path.insert(0, Blocker())

import torch
import tritone
from tritone.kernels.attention.flash import flash_attention_triton
from tritone.kernels.linear.gemm import linear, linear_triton
from tritone.kernels.runtime.compilation import compile_all, declared_cases
from tritone.kernels.runtime.launch import compiled, interpreting

with tritone.Engine("digits") as engine:
    print(*[result.text for result in engine.transcribe([sys.argv[1]])])
with tritone.Engine(sys.argv[2]) as engine:
    print(*[result.labels[0] for result in engine.classify([sys.argv[1]])])
print(len(declared_cases()) > 0, compiled(), interpreting())
offsets = torch.tensor([0, 3], dtype=torch.int32)
rows = torch.ones(3, 1, 16)
for launch in (
    lambda: linear_triton(rows[:, 0], torch.ones(16, 16)),
    lambda: flash_attention_triton(rows, rows, rows, offsets, offsets),
    lambda: next(compile_all(declared_cases()[:1], 1)),
):
    try:
        launch()
    except RuntimeError as error:
        print(error)
"""
ROOT = Path(__file__).parents[3]


def test_an_engine_transcribes_and_classifies_where_triton_cannot_be_imported():
    given = ROOT / "samples" / "digits" / "two_digits_16k.wav", ROOT / "models" / "digit_classifier"
    command = [sys.executable, "-c", SCRIPT, *map(str, given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    text, label, state, *errors = done.stdout.splitlines()
    assert text == "four two"
    assert label.strip()
    assert state == "True 0 False"
    assert len(errors) == 3
    for error in errors:
        assert error.startswith("Triton cannot be imported (blocked by a test)")
        assert "install it" in error
