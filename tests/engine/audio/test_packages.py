"""An engine without the packages that only files and other sampling rates need, in a process of its own."""

import subprocess
import sys

import pytest

_WITHOUT = """
import sys
sys.modules |= dict.fromkeys(("soundfile", "soxr", "av"))  # an import of None fails
import numpy as np
import tritone

rng = np.random.default_rng(0)
with tritone.Engine("digits", device="cpu") as engine:
    wav = b"RIFF" + (36).to_bytes(4, "little") + b"WAVEfmt " + bytes(28)
    sources = [rng.standard_normal(16_000).astype(np.float32) / 9, wav, b"ID3" + bytes(600)]
    for result in engine.transcribe(sources):
        print(type(result.error).__name__, result.error)
    print(*(result.error for result in engine.transcribe([np.zeros(8_000, np.float32)], sampling_rate=8_000)))
"""


@pytest.fixture(scope="module")
def lines() -> list[str]:
    done = subprocess.run([sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_arrays_at_the_models_rate_need_no_package(lines: list[str]) -> None:
    assert lines[0] == "NoneType None"


@pytest.mark.parametrize(("line", "name"), [(1, "soundfile"), (2, "av"), (3, "soxr")])
def test_an_error_names_the_package_that_is_missing(lines: list[str], line: int, name: str) -> None:
    assert f"needs the package {name}" in lines[line]
    assert f"pip install {name}" in lines[line]
