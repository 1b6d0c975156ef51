"""GPUs that take no time, and what shows on them: direct launches, and kernels compiled ahead of time.

Each script runs in a process of its own, because a stand-in for CUDA stays, with the installed Triton.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.skipif(torch.version.cuda is not None, reason="stands in for CUDA in a CPU build of torch"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs a C++ compiler"),
]


@pytest.fixture
def run(tmp_path):
    """Run a script after `fake_gpu.install()`, with an empty cache of Triton's."""

    def run(script: str) -> str:
        file = tmp_path / "script.py"
        file.write_text(f"import torch\nfrom bench import fake_gpu\nfake_gpu.install()\n{script}")
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        environment["TRITON_CACHE_DIR"] = str(tmp_path / "triton")
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, str(file)], capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr[-4000:]
        return done.stdout

    return run


def test_large_tables_of_indices_arrive_and_large_recordings_need_not(run):
    run("""
for _ in range(3):  # in memory that is given out again
    table = torch.arange(100_000).pin_memory().to("cuda", non_blocking=True)
    assert torch.equal(table.cpu(), torch.arange(100_000))
    table.fill_(1 << 40)
    del table
""")


def test_tensors_compute_and_their_waits_are_counted(run):
    run("""
x = torch.arange(12, device="cuda").view(3, 4) * 2
assert x.device == torch.device("cuda:0") and x.t().contiguous().stride() == (3, 1)
assert x[1].tolist() == [8, 10, 12, 14] and torch.sort(-x[0]).values.device == x.device
x[0] = 7
x[torch.tensor([1], device="cuda")] = 5
assert x.sum().item() == 28 + 20 + sum(range(16, 24, 2))
with torch.inference_mode():
    assert x[2].add_(1).sum().item() == 80  # a view of an ordinary tensor
assert torch.zeros(1 << 36, dtype=torch.uint8, device="cuda")[-1].item() == 0
views = x[:3, :4], x.view(torch.float64), x.detach(), x.t(), x[0], x.unfold(1, 2, 1), x.expand(2, 3, 4)
for view in (*views, x.split(1)[0]):
    assert view.device == x.device and view.untyped_storage().data_ptr() == x.untyped_storage().data_ptr()
assert x.to("cuda:1").new_empty(2).device == torch.device("cuda:1")

def counted(call):
    before = fake_gpu.counts()
    call()
    now = fake_gpu.counts() - before
    return now.operations, now.copies, now.blocking, now.waits

pinned = torch.arange(4).pin_memory()
assert pinned.is_pinned() and not torch.arange(4).is_pinned()
assert counted(lambda: pinned.to("cuda", non_blocking=True)) == (0, 1, 0, 0)
assert counted(lambda: pinned.to("cuda")) == (0, 1, 1, 0)
assert counted(lambda: torch.arange(4).to("cuda", non_blocking=True)) == (0, 1, 1, 0)
assert counted(lambda: x.sum()) == (1, 0, 0, 0)
assert counted(lambda: x.view(-1)[2:].t()) == (0, 0, 0, 0)
assert counted(torch.cuda.synchronize) == (0, 0, 0, 1)
with fake_gpu.recording() as log:
    x.add_(1)
    x[0, 0].item()
assert log.operations == ["add.out", "blocking item"], log.operations
""")


def test_streams_and_graphs_are_of_their_device(run):
    run("""
stream = torch.cuda.Stream("cuda:1")
with torch.cuda.stream(stream):
    assert torch.cuda.current_device() == 1 and torch.cuda.current_stream() == stream
    assert torch.cuda.Event().record() is None
assert torch.cuda.current_device() == 0
with torch.cuda.device(1):
    assert torch.empty(1, device="cuda").device == torch.device("cuda:1")
graph, x = torch.cuda.CUDAGraph(), torch.ones(3, device="cuda")
with torch.cuda.graph(graph):
    x.add_(1)
    x.mul_(2)
assert graph.nodes == 2
graph.replay()
assert fake_gpu.counts().replays == 1
try:
    with torch.cuda.graph(graph):
        x.sum().item()
    raise SystemExit("a wait was recorded")
except RuntimeError as error:
    assert "not permitted when stream is capturing" in str(error)
""")


LAUNCHES = """
import triton
from tritone.kernels.linear.gemm import linear, linear_kernel
from tritone.kernels.runtime.launch import UndeclaredCaseError, recorded

def tensors(device):
    return [torch.ones(*shape, dtype=torch.float16, device=device) for shape in ((48, 64), (32, 64), (32,))]

def launched(call):
    with fake_gpu.recording() as log:
        call()
    return [(one.kernel, one.device, one.stream) for one in log.launches]

torch.set_grad_enabled(False)
hidden, weight, bias = tensors("cuda:0")
call = lambda: linear(hidden, weight, bias, phase="decode")
case = linear_kernel.case(hidden.device, "decode", "plain", torch.float16, "aligned")
assert launched(call) == [("linear_kernel", 0, 0)] and list(case._direct) == [0]
"""


def test_a_case_keeps_its_compiled_kernel_and_passes_it_what_triton_would(run):
    run(
        LAUNCHES
        + """
known = case._direct[0].__globals__
launcher, calls = known["run"], []
type_ = type(launcher)
ordinary = type_.__call__
type_.__call__ = lambda self, *given: calls.append(given) or ordinary(self, *given)
known["run"] = launcher
def address(value):
    return value.data_ptr() if isinstance(value, torch.Tensor) else value
for terms in ({}, {"residual": torch.ones(48, 32, dtype=torch.float16, device="cuda")}, {"limit": 3.0}):
    calls.clear()
    linear(hidden, weight, bias, phase="decode", **terms)
    kept = case._direct.pop(0)
    linear(hidden, weight, bias, phase="decode", **terms)
    case._direct[0] = kept
    direct, triton_s = ([address(value) for value in given] for given in calls)
    assert direct[:6] == triton_s[:6]  # grid, stream, function, metadata
    free = {4} if "residual" in terms else {3, 4}  # the new output, and what stands in for None
    for place, (one, other) in enumerate(zip(direct[9:], triton_s[9:], strict=True)):
        assert place in free or one == other, (place, one, other)
type_.__call__ = ordinary

# Another device, whichever is current; and its streams.
there = tensors("cuda:1")
on_other = lambda: linear(there[0], there[1], there[2], phase="decode")
assert launched(on_other) == [("linear_kernel", 1, 0)] and sorted(case._direct) == [0, 1]
assert launched(on_other) == [("linear_kernel", 1, 0)] and torch.cuda.current_device() == 0
with torch.cuda.device(1):
    assert launched(call) == [("linear_kernel", 0, 0)] and torch.cuda.current_device() == 1
stream = torch.cuda.Stream("cuda:1")
with torch.cuda.stream(stream):
    assert launched(on_other) == [("linear_kernel", 1, stream.cuda_stream)]
try:
    linear(hidden, there[1], bias, phase="decode")
    raise SystemExit("tensors of two devices were taken")
except ValueError as error:
    assert "one device, got cuda:0, cuda:1" in str(error)
"""
    )


def test_what_does_not_fit_goes_the_ordinary_way_which_copies_or_refuses(run):
    run(
        LAUNCHES
        + """
out = torch.empty(48, 32, dtype=torch.float16, device="cuda")
good = [hidden, weight, bias, None, out, 48, 32, 64, True, False, 0, -1.0, 2.0]
def given(place, value):
    return lambda: case.launch((1,), *good[:place], value, *good[place + 1:])
assert launched(given(5, 47)) == [("linear_kernel", 0, 0)]
flat = torch.ones(48 * 64 + 1, dtype=torch.float16, device="cuda")
for value in (flat[1:].view(48, 64), torch.ones(64, 48, dtype=torch.float16, device="cuda").t()):
    with fake_gpu.recording() as log:
        given(0, value)()
    assert len(log.launches) == 1 and len(log.operations) == 1, log  # a copy
for place, value in (
    (0, hidden.float()), (4, flat[1:]), (6, 33), (7, 2**31), (5, 2**31), (5, -(2**31) - 1), (5, 0.5),
    (5, torch.ones(1, device="cuda")), (11, torch.ones(1, device="cuda")),
):
    try:
        given(place, value)()
        raise SystemExit(f"parameter {place} was taken: {value}")
    except UndeclaredCaseError:
        pass
try:
    case.launch((1,), *good[:-1])
    raise SystemExit("an argument was missing")
except TypeError as error:
    assert "takes 13 arguments, got 12" in str(error)
with recorded() as cases:
    call()
assert cases == [case]
with recorded(dry=True):
    assert launched(call) == []

# A profiler hears every launch; one that listens to a compilation has the kernel made anew afterwards.
heard = []
def listen(metadata):
    heard.append(metadata.get()["name"])
triton.knobs.runtime.launch_enter_hook.add(listen)
call()
assert heard == ["linear_kernel"]
case._direct.clear()
call()
assert not case._direct
triton.knobs.runtime.launch_enter_hook.remove(listen)
call()
assert list(case._direct) == [0] and len(heard) == 2

# Where Triton's interface is another, a launch goes its own way.
from tritone.kernels.runtime import direct_launch
direct_launch._LAUNCHER = ("grid",)
case._direct.clear()
assert launched(call) == [("linear_kernel", 0, 0)] and not case._direct
"""
    )


def test_a_launch_finds_what_was_compiled_ahead_of_time(run, tmp_path):
    """String constants, numbers and booleans are all in these cases' keys."""
    printed = run(f"""
import os
from tritone.kernels.linear.gemm import linear
from tritone.kernels.norm.layer_norm import layer_norm
from tritone.kernels.runtime import compilation
from tritone.kernels.runtime.compile_ahead import cases_of, compile_ahead
folder = {str(tmp_path / "triton")!r}

def binaries():
    return sorted(name for _, _, names in os.walk(folder) for name in names if name.endswith(".cubin"))

torch.set_grad_enabled(False)
hidden, weight, bias = (torch.ones(*shape, device="cuda").half() for shape in ((48, 64), (32, 64), (64,)))
def model():
    linear(hidden, weight, phase="decode")
    linear(hidden, weight, phase="decode")
    layer_norm(hidden, bias, bias)
cases = cases_of(model)
assert len(cases) == 2 and not binaries()
assert compile_ahead(cases, hidden.device, jobs=2, report=lambda *of: print("of", *of)) == 2
assert binaries() == ["layer_norm_kernel.cubin", "linear_kernel.cubin"]
assert compile_ahead(cases, hidden.device) == 0
model()
assert binaries() == ["layer_norm_kernel.cubin", "linear_kernel.cubin"]

# Without Triton's private interface kernels compile all the same, and the declared specialization is used.
def missing(*_):
    raise AttributeError
compilation._asked = missing
assert compilation.compiled_case(cases[0], compilation.TARGETS["sm_90"]).metadata.shared > 0
""")
    assert [line for line in printed.splitlines() if line.startswith("of")] == ["of 0 2", "of 1 2", "of 2 2"]


def test_the_command_measures_launches(run, tmp_path):
    file = tmp_path / "launches.json"
    printed = run(f"""
from bench.engine.host import main
assert main(["--launches", "--quick", "--json", {str(file)!r}]) == 0
""")
    assert "| linear " in printed
    assert '"linear":' in file.read_text()
