"""Choice of the cases that are compiled before a model's first launch."""

import pytest
import torch

from tritone.kernels.linear.gemm import linear_kernel
from tritone.kernels.runtime.compilation import declared_cases
from tritone.kernels.runtime.compile_ahead import cases_for


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_model_has_the_cases_of_its_dtype_and_of_kernels_without_it(dtype):
    chosen = cases_for("sm_90", dtype)
    assert {case.architecture for case in chosen} == {"sm_90"}
    declared = {case.kernel.name for case in declared_cases() if case.architecture == "sm_90"}
    assert {case.kernel.name for case in cases_for("sm_90", dtype)} == declared
    own = [case for case in chosen if case.kernel is linear_kernel]
    assert own
    assert all(dtype in case.key for case in own)
