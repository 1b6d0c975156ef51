"""Activations by name; an element's bits do not depend on its position."""

import pytest
import torch
from kernel_checks import close

from tritone.kernels.linear.activation import ACTIVATIONS, activate, activate_, check_activation

TOLERANCE = {torch.float64: 1e-12, torch.float32: 3e-6, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# On both sides of a vector, of what torch gives one thread, and of what it divides.
COUNTS = [0, 1, 7, 63, 64, 65, 1000, 16384, 16385, 32769, 98304, 100003, 200000]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_in_place_it_is_the_specification_wherever_the_element_is(name, dtype):
    hidden = 3 * torch.randn(250_000, generator=torch.Generator().manual_seed(0)).to(dtype)
    whole = hidden.clone()
    assert activate_(whole, name) is whole
    close(whole, activate(hidden.double(), name), TOLERANCE[dtype])
    for count in COUNTS:
        for start in (0, 7, 64):
            part = slice(start, start + count)
            assert torch.equal(activate_(hidden[part].clone(), name), whole[part])


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_columns_of_a_wider_tensor_are_taken_and_no_number_stays_so(name):
    hidden = torch.randn(9, 40)
    hidden[2, 5] = float("nan")
    out = activate_(hidden[:, 3:11], name)
    torch.testing.assert_close(out, activate(hidden[:, 3:11].clone(), name), equal_nan=True)
    assert out.isnan().nonzero().tolist() == [[2, 2]]


def test_no_activation_changes_nothing_and_an_unknown_one_is_refused():
    hidden = torch.randn(3)
    assert activate(hidden, None) is hidden
    assert activate_(hidden, None) is hidden
    check_activation(None)
    with pytest.raises(ValueError, match="unknown activation 'golu'; one of gelu, gelu_accurate"):
        check_activation("golu")
