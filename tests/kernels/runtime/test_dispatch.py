"""Choice of an implementation by tensors."""

import pytest
import torch

from tritone.kernels.runtime.dispatch import choose


def reference():
    raise AssertionError("never called here")


def tuned():
    raise AssertionError("never called here")


def test_cpu_tensors_go_to_the_tuned_function_where_there_is_one():
    plain = torch.ones(1)
    assert choose(plain, reference=reference, cpu=tuned) is tuned
    assert choose(plain, None, plain, reference=reference, cpu=tuned) is tuned
    assert choose(plain, reference=reference) is reference


def test_whatever_needs_a_gradient_goes_to_the_reference():
    plain, weight = torch.ones(1), torch.ones(1, requires_grad=True)
    assert choose(plain, None, weight, reference=reference, cpu=tuned) is reference
    with torch.no_grad():
        assert choose(plain, weight, reference=reference, cpu=tuned) is tuned
    with torch.inference_mode():
        assert choose(plain, weight, reference=reference, cpu=tuned) is tuned


def test_tensors_of_another_device_go_to_the_reference_until_it_has_a_kernel():
    elsewhere = torch.ones(1, device="meta")
    assert choose(elsewhere, reference=reference, cpu=tuned) is reference


def test_tensors_on_different_devices_are_refused_with_their_names():
    with pytest.raises(ValueError, match=r"one device, got cpu, meta; move them with \.to\(device\)"):
        choose(torch.ones(1), torch.ones(1, device="meta"), reference=reference, cpu=tuned)
