"""Counts of kernels that Triton compiles while an engine runs."""

import numpy as np
import pytest
import torch
import triton

import tritone
from tritone.kernels.runtime import launch


def noise(count: int, seconds: float = 1.0) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [(0.1 * generator.standard_normal(int(seconds * 16_000))).astype(np.float32) for _ in range(count)]


def told_by_triton(name: str) -> object:
    """Call Triton's hook after a compilation."""
    return triton.knobs.runtime.jit_post_compile_hook(
        key="key", repr=name, fn=None, compile={}, is_manual_warmup=False, already_compiled=False
    )


@pytest.fixture
def as_before():
    """Compilations made up here are forgotten, and so are hooks."""
    hook, count = triton.knobs.runtime.jit_post_compile_hook, len(launch._compiled)
    yield
    triton.knobs.runtime.jit_post_compile_hook = hook
    del launch._compiled[count:]


@pytest.mark.usefixtures("as_before")
def test_an_engine_counts_compilations_since_it_was_ready():
    told_by_triton("before")
    with tritone.Engine("digits", device="cpu", num_rows=2) as engine:
        assert engine.stats().compiled == 0
        told_by_triton("one")
        told_by_triton("two")
        assert engine.stats().compiled == 2
        with tritone.Engine("digits", device="cpu", num_rows=2) as later:
            assert later.stats().compiled == 0


def test_nothing_is_compiled_on_the_cpu():
    with tritone.Engine("digits", device="cpu", num_rows=4) as engine:
        list(engine.transcribe(noise(3), max_new_tokens=3))
        assert engine.stats().compiled == 0


@pytest.mark.usefixtures("as_before")
def test_a_hook_that_was_there_before_goes_on_hearing():
    heard = []
    triton.knobs.runtime.jit_post_compile_hook = lambda **named: heard.append(named["repr"]) or True
    launch._count_compilations()
    before = launch.compiled()
    assert told_by_triton("kernel") is True
    assert heard == ["kernel"]
    assert launch.compiled() == before + 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("num_beams", [1, 4])
def test_what_has_run_once_is_not_compiled_again(num_beams):
    """Of other lengths and in other numbers than before, too: no case depends on them."""
    with tritone.Engine("digits", device="cuda", dtype="float16", num_rows=64) as engine:
        list(engine.transcribe(noise(8), num_beams=num_beams, max_new_tokens=4))
        warm = engine.stats().compiled
        assert launch.compiled() > 0  # or nothing is counted
        for seconds in (0.1, 0.7, 2.5, 7.9):
            list(engine.transcribe(noise(20, seconds), num_beams=num_beams, max_new_tokens=40))
        assert engine.stats().compiled == warm
