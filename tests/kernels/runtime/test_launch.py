"""The launcher: declared cases and nothing else."""

import pytest
import torch
import triton.language as tl

from tritone.kernels.linear.gemm import linear, linear_kernel
from tritone.kernels.runtime import launch
from tritone.kernels.runtime.launch import Kernel, UndeclaredCaseError, ready, recorded


def copy_kernel(
    source_ptr,  # [n]
    out_ptr,  # [n]
    n: tl.int32,
    factor: tl.float32,
    BLOCK: tl.constexpr,
):
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out_ptr + place, tl.load(source_ptr + place, mask=place < n) * factor, mask=place < n)


@pytest.fixture
def copying(kernels_on):
    """A kernel that is declared for float32, aligned and not."""
    kernel = Kernel(copy_kernel, sizes=("n",), outputs=("out_ptr",))
    launch.KERNELS.remove(kernel)  # a test's, not the program's
    pointers = {"source_ptr": torch.float32, "out_ptr": torch.float32}
    for architecture in launch.ARCHITECTURES:
        for aligned in (True, False):
            kernel.declare(aligned, architecture=architecture, pointers=pointers, aligned=aligned, BLOCK=16)
    return kernel


def test_a_declared_case_runs(copying, kernels_on):
    source = torch.arange(1.0, 33.0, device=kernels_on)
    out = torch.zeros(32, device=kernels_on)
    copying.case(source.device, True).launch((2,), source, out, 32, 0.5)
    assert torch.equal(out, source / 2)
    copying.case(source.device, False).launch((2,), source, out, 19, 2)
    assert torch.equal(out[:19], source[:19] * 2)
    assert torch.equal(out[19:], source[19:] / 2)


def test_inputs_are_made_ready_and_a_tensor_stands_in_for_none(copying, kernels_on):
    source, out = torch.arange(65.0, device=kernels_on), torch.zeros(32, device=kernels_on)
    for given in (source[1:33], source[1:].view(32, 2)[:, 0]):
        copying.case(source.device, True).launch((2,), given, out, 32, True)
        assert torch.equal(out, given)
    copying.case(source.device, True).launch((2,), None, out, 32, 2.0)
    assert torch.equal(out, 2 * given)


def test_a_case_that_was_not_declared_is_refused_with_those_that_were(copying):
    with pytest.raises(
        UndeclaredCaseError, match=r"copy_kernel has no case \('maybe',\) for sm_90, only \(True,\)"
    ):
        copying.case(torch.device("cpu"), "maybe")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"source": torch.ones(32, dtype=torch.float16)},
            r"source_ptr as \*fp32, a multiple of 16; got \*fp16",
        ),
        ({"out": torch.ones(33)[1:]}, "4 bytes past a multiple of 16"),
        ({"out": torch.ones(32, 2)[:, 0]}, r"of shape \[32\]"),
        ({"source": None, "out": None}, "no tensor that can stand in for source_ptr"),
        ({"n": 17}, "n as i32, a multiple of 16; got 17"),
        ({"n": 2**31}, "n as i32, a multiple of 16; got 2147483648"),
        ({"n": 0.5}, "n as i32"),
        ({"factor": torch.ones(1)}, r"factor as fp32; got \*fp32"),
    ],
)
def test_arguments_that_would_compile_another_kernel_are_refused(copying, change, message):
    given = {"source": torch.ones(32), "out": torch.ones(32), "n": 32, "factor": 1.0} | change
    with pytest.raises(UndeclaredCaseError, match=message):
        copying.case(torch.device("cpu"), True).launch((2,), *given.values())


def test_another_number_of_arguments_is_refused(copying):
    with pytest.raises(TypeError, match="takes 4 arguments, got 1"):
        copying.case(torch.device("cpu"), True).launch((2,), torch.ones(16))


def test_a_case_is_declared_once(copying):
    with pytest.raises(ValueError, match=r"declares \(True,\) for sm_90 twice"):
        copying.declare(
            True,
            architecture="sm_90",
            pointers={"source_ptr": torch.float32, "out_ptr": torch.float32},
            BLOCK=32,
        )


def test_an_empty_grid_launches_nothing(copying, kernels_on):
    with recorded() as cases:
        out = torch.zeros(16, device=kernels_on)
        copying.case(out.device, True).launch((0,), out, out, 0, 1.0)
    assert cases == []


def test_launches_are_recorded_and_a_dry_run_launches_nothing(kernels_on):
    hidden, weight = torch.ones(3, 16, device=kernels_on), torch.ones(32, 16, device=kernels_on)
    with recorded() as outer:
        real = linear(hidden, weight)
        with recorded(dry=True) as inner:
            dry = linear(hidden, weight, phase="decode")
    assert float(real[0, 0]) == 16.0
    assert bool(dry.isnan().all())  # never written
    encode, decode = (
        linear_kernel.case(hidden.device, phase, "plain", torch.float32, "aligned")
        for phase in ("encode", "decode")
    )
    assert outer == [encode, decode]
    assert inner == [decode]


def test_ready_copies_only_what_is_not_contiguous_and_aligned():
    tensor = torch.arange(64.0).view(8, 8)
    assert ready(tensor) is tensor
    assert ready(tensor[2:]).data_ptr() == tensor[2:].data_ptr()
    for other in (tensor.T, torch.arange(9.0)[1:]):
        copy = ready(other)
        assert torch.equal(copy, other)
        assert copy.is_contiguous()
        assert copy.data_ptr() % 16 == 0


def test_bfloat16_is_refused_in_the_interpreter_which_multiplies_it_wrongly(kernels_on):
    if kernels_on == "cuda":
        pytest.skip("only the interpreter does")
    hidden, weight = torch.ones(3, 16, dtype=torch.bfloat16), torch.ones(4, 16, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="use float32 or float16 under TRITON_INTERPRET=1"):
        linear(hidden, weight)


def test_every_kernel_is_declared_for_every_architecture():
    for kernel in launch.KERNELS:
        keys = {
            architecture: {key for other, key in kernel.cases if other == architecture}
            for architecture in launch.ARCHITECTURES
        }
        assert keys["sm_90"], kernel.name
        assert all(found == keys["sm_90"] for found in keys.values()), kernel.name
