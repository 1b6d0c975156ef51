"""Fixtures of the kernels' tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(params=[1, 2, 3], ids="{} threads".format)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    """Threads of torch on the CPU: three split a tensor of whole vectors inside of them."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=["cpu", "kernels"])
def device(request: pytest.FixtureRequest) -> str:
    """Device of an operation: the CPU for its CPU version, or that of its kernels."""
    return "cpu" if request.param == "cpu" else request.getfixturevalue("kernels_on")
