"""Replacement of an operation's implementation by a user's function."""

import subprocess
import sys

import pytest
import torch

import tritone
import tritone.kernels
from tritone.kernels.attention.paged.reference import paged_attention_reference
from tritone.kernels.norm.layer_norm import layer_norm, layer_norm_reference


def doubled(*arguments, **options):
    return 2 * layer_norm_reference(*arguments, **options)


def operands() -> list[torch.Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(0)) for shape in ((3, 8), (8,), (8,))]


def test_an_operation_calls_the_function_inside_the_context_alone():
    given = operands()
    shipped = layer_norm(*given)
    with tritone.kernels.use("layer_norm", doubled) as replacement:
        assert torch.equal(layer_norm(*given), 2 * shipped)
        assert replacement.calls == 1
        with tritone.kernels.use("layer_norm", lambda *_, **options: given[0]):
            assert layer_norm(*given) is given[0]
        assert torch.equal(layer_norm(*given), 2 * shipped)
    assert torch.equal(layer_norm(*given), shipped)


def test_a_call_that_the_function_does_not_implement_is_left_to_the_shipped_one():
    given = operands()
    shipped = layer_norm(*given)
    with tritone.kernels.use("layer_norm", lambda *_, **options: NotImplemented) as replacement:
        assert torch.equal(layer_norm(*given), shipped)
    assert replacement.calls == 0


def test_gradients_still_go_through_the_reference():
    hidden, *others = operands()
    hidden.requires_grad_()
    with tritone.kernels.use("layer_norm", doubled) as replacement:
        layer_norm(hidden, *others).sum().backward()
    assert replacement.calls == 0
    assert hidden.grad is not None


def test_an_error_inside_brings_the_shipped_one_back():
    given = operands()
    with pytest.raises(ZeroDivisionError), tritone.kernels.use("layer_norm", lambda *_, **options: 1 / 0):
        layer_norm(*given)
    assert layer_norm(*given).shape == (3, 8)


def test_an_unknown_operation_is_refused_with_all_names():
    with (
        pytest.raises(
            ValueError, match=r"no operation is called 'norm'; there are .*flash_attention.*linear"
        ),
        tritone.kernels.use("norm", doubled),
    ):
        pass
    with pytest.raises(AttributeError, match="no attribute 'used'"):
        _ = tritone.kernels.used


@pytest.mark.parametrize(
    ("name", "function"),
    [("layer_norm", layer_norm_reference), ("paged_attention", paged_attention_reference)],
)
def test_a_torch_function_serves_the_engine(name, function):
    sound = torch.randn(8000, generator=torch.Generator().manual_seed(0)).numpy()
    with tritone.Engine("digits", device="cpu", num_rows=2) as engine:
        (wanted,) = engine.transcribe([sound])
    with (
        tritone.kernels.use(name, function) as replacement,
        tritone.Engine("digits", device="cpu", num_rows=2) as engine,
    ):
        (found,) = engine.transcribe([sound])
    assert found.token_ids == wanted.token_ids
    assert replacement.calls >= 4


def test_the_package_imports_nothing_until_it_is_asked():
    code = "import sys, tritone.kernels; sys.exit('torch' in sys.modules or 'triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
