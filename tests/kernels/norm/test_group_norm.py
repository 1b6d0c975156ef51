"""Group norm over packed utterances: the specification, and the kernels against it."""

import pytest
import torch
import torch.nn.functional as F

from tritone.kernels.linear.activation import ACTIVATIONS
from tritone.kernels.norm.group_norm import group_norm, group_norm_reference
from tritone.kernels.runtime.packing import cumulative, spans

# In float32 the difference of two steps that are nearly equal has few digits, in torch as here.
TOLERANCE = {torch.float32: 5e-5, torch.float16: 4e-3, torch.bfloat16: 4e-2}
# lengths, channels, groups. Pieces are of 1,024 steps: one exactly, and some on both sides of it.
SHAPES = [
    ([1], 1, 1),
    ([7], 5, 5),
    ([3, 0, 5, 1], 6, 3),
    ([1023, 1024, 1025], 3, 3),
    ([0, 33, 2, 0], 70, 70),
    ([31, 2050], 48, 1),
    ([64, 17], 80, 20),
]


def operands(lengths: list[int], channels: int, dtype: torch.dtype, device: str) -> list[torch.Tensor]:
    """hidden, cu_tokens, weight, bias."""
    generator = torch.Generator().manual_seed(sum(lengths) * 1009 + channels)
    hidden = torch.randn(sum(lengths), channels, generator=generator) * 2 + 1
    weight, bias = torch.randn(channels, generator=generator), torch.randn(channels, generator=generator)
    hidden, weight, bias = (tensor.to(device=device, dtype=dtype) for tensor in (hidden, weight, bias))
    return [hidden, cumulative(lengths, device), weight, bias]


def exact(hidden, cu_tokens, groups, weight, bias, eps=1e-5):
    """torch's group norm of each utterance alone, in float64."""
    weight, bias = weight.double(), bias.double()
    whole = [hidden[:0].double()]
    for start, end in spans(cu_tokens):
        if end > start:
            # Not F.group_norm, which refuses a single number.
            one = torch.group_norm(hidden[start:end].double().T[None], groups, weight, bias, eps)
            whole.append(one[0].T)
    return torch.cat(whole)


@pytest.mark.parametrize(("lengths", "channels", "groups"), SHAPES, ids=str)
def test_the_kernels_equal_torchs_group_norm_of_each_utterance(lengths, channels, groups, dtype, kernels_on):
    hidden, cu_tokens, weight, bias = operands(lengths, channels, dtype, kernels_on)
    out = group_norm(hidden, cu_tokens, groups, weight, bias)
    assert out.dtype == dtype
    wanted = exact(hidden, cu_tokens, groups, weight, bias)
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, *TOLERANCE], ids=str)
@pytest.mark.parametrize(("lengths", "channels", "groups"), SHAPES, ids=str)
def test_the_reference_equals_torchs_group_norm_of_each_utterance(lengths, channels, groups, dtype):
    hidden, cu_tokens, weight, bias = operands(lengths, channels, dtype, "cpu")
    wanted = exact(hidden, cu_tokens, groups, weight, bias, 1e-3)
    tolerance = TOLERANCE.get(dtype, 1e-12)
    for run in (group_norm, group_norm_reference):
        out = run(hidden, cu_tokens, groups, weight, bias, 1e-3)
        assert out.dtype == dtype
        torch.testing.assert_close(out.double(), wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("activation", ["gelu", "relu", "tanh"])
def test_an_activation_comes_after_the_norm(activation, dtype, kernels_on):
    hidden, cu_tokens, weight, bias = operands([40, 0, 3], 6, dtype, kernels_on)
    out = group_norm(hidden, cu_tokens, 3, weight, bias, activation=activation)
    wanted = ACTIVATIONS[activation](exact(hidden, cu_tokens, 3, weight, bias))
    torch.testing.assert_close(out.double(), wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


def test_it_is_f_group_norm_and_so_is_its_gradient():
    hidden, cu_tokens, weight, bias = operands([9], 6, torch.float64, "cpu")
    given = [tensor.requires_grad_() for tensor in (hidden, weight, bias)]
    wanted = F.group_norm(hidden.T[None], 2, weight, bias, 1e-2)[0].T
    torch.testing.assert_close(group_norm(hidden, cu_tokens, 2, weight, bias, 1e-2), wanted)
    assert torch.autograd.gradcheck(lambda h, w, b: group_norm(h, cu_tokens, 2, w, b), given)


@pytest.mark.parametrize(("channels", "groups"), [(48, 48), (7, 7), (24, 4)])
def test_an_utterance_has_the_same_bits_alone_and_anywhere(channels, groups, dtype, kernels_on):
    lengths = [37, 1100, 0, 5, 1100]
    hidden, cu_tokens, weight, bias = operands(lengths, channels, dtype, kernels_on)
    hidden[-1100:] = hidden[37:1137]
    alone = group_norm(hidden[37:1137].clone(), cumulative([1100], kernels_on), groups, weight, bias)
    for neighbors in (hidden, hidden.clone()):
        out = group_norm(neighbors, cu_tokens, groups, weight, bias)
        assert torch.equal(out[37:1137], alone)
        assert torch.equal(out[-1100:], alone)
        hidden[:37], hidden[1137:1142] = float("nan"), float("inf")
    swapped = torch.cat([hidden[37:1137], hidden[:37]])
    out = group_norm(swapped, cumulative([1100, 37], kernels_on), groups, weight, bias)
    assert torch.equal(out[:1100], alone)
    assert bool(out[1100:].isnan().all())


def test_an_utterance_has_the_same_bits_on_the_cpu_path_after_an_activation():
    lengths = [37, 211, 0, 5]
    hidden, cu_tokens, weight, bias = operands(lengths, 14, torch.float32, "cpu")
    whole = group_norm(hidden, cu_tokens, 14, weight, bias, activation="gelu")
    for part, out in zip(hidden.split(lengths), whole.split(lengths), strict=True):
        own = cumulative([len(part)])
        assert torch.equal(group_norm(part.clone(), own, 14, weight, bias, activation="gelu"), out)


def test_constants_become_the_bias_whatever_their_size(dtype, kernels_on):
    hidden, cu_tokens, weight, bias = operands([1500, 1, 40], 10, dtype, kernels_on)
    hidden[:] = torch.randn(10, device=kernels_on) * 1000
    out = group_norm(hidden, cu_tokens, 10, weight, bias, 1e-12)
    assert torch.equal(out, bias.expand(1541, 10))


def test_the_variance_holds_far_from_zero(kernels_on):
    hidden, cu_tokens, weight, bias = operands([1200, 30], 16, torch.float32, kernels_on)
    hidden += 10_000
    wanted = exact(hidden, cu_tokens, 4, weight, bias)
    out = group_norm(hidden, cu_tokens, 4, weight, bias)
    torch.testing.assert_close(out.double(), wanted, rtol=5e-3, atol=5e-3)


def test_no_utterances_and_only_empty_ones_give_no_tokens(kernels_on):
    for lengths in ([], [0, 0]):
        hidden, cu_tokens, weight, bias = operands(lengths, 16, torch.float32, kernels_on)
        assert group_norm(hidden, cu_tokens, 4, weight, bias).shape == (0, 16)


def test_columns_of_a_wider_tensor_are_taken(kernels_on):
    hidden, cu_tokens, weight, bias = operands([20], 40, torch.float32, kernels_on)
    wanted = group_norm(hidden[:, 3:35].contiguous(), cu_tokens, 8, weight[:32], bias[:32])
    assert torch.equal(group_norm(hidden[:, 3:35], cu_tokens, 8, weight[:32], bias[:32]), wanted)


def test_what_does_not_fit_is_refused_with_its_numbers():
    hidden, cu_tokens, weight, bias = operands([4], 6, torch.float32, "cpu")
    with pytest.raises(ValueError, match="6 channels cannot be divided into 4 equal groups"):
        group_norm(hidden, cu_tokens, 4, weight, bias)
    with pytest.raises(ValueError, match=r"takes \[tokens, 5\], got \[4, 6\]"):
        group_norm(hidden, cu_tokens, 1, weight[:5], bias[:5])
    with pytest.raises(ValueError, match="rise from 0 to the 4 packed rows"):
        group_norm(hidden, cu_tokens[:1], 1, weight, bias)
    with pytest.raises(ValueError, match="unknown activation 'golu'"):
        group_norm(hidden, cu_tokens, 1, weight, bias, activation="golu")
