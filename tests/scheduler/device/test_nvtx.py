"""NVTX ranges around a step's phases."""

import subprocess
import sys

import pytest
import torch

from tritone.scheduler.device.nvtx import marked

RANGES = """
import contextlib, torch
names = []
torch.cuda.nvtx.range_push, torch.cuda.nvtx.range_pop = names.append, lambda: names.append("")
import numpy, tritone
with tritone.Engine("digits", device="cpu", num_rows=2) as engine:
    engine.submit(numpy.zeros(8000, numpy.float32)).result()
print("/".join(sorted(set(names))))
"""


def test_a_function_is_left_as_it_is_unless_ranges_are_on(monkeypatch):
    def function(number: int) -> int:
        return 10 // number

    assert marked("name", enabled=False)(function) is function
    names: list[str] = []
    monkeypatch.setattr(torch.cuda.nvtx, "range_push", names.append)
    monkeypatch.setattr(torch.cuda.nvtx, "range_pop", lambda: names.append("end"))
    call = marked("name", enabled=True)(function)
    assert call(5) == 2
    with pytest.raises(ZeroDivisionError):
        call(0)
    assert names == ["name", "end"] * 2


@pytest.mark.parametrize(("setting", "names"), [("1", "/admission/decode step/encode/results"), ("0", "")])
def test_the_environment_puts_phases_of_an_engine_into_ranges(setting, names, monkeypatch):
    monkeypatch.setenv("TRITONE_NVTX", setting)
    done = subprocess.run([sys.executable, "-c", RANGES], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == names, done.stderr
