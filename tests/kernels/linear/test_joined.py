"""Linear layers of one input as one product, against one layer after the other."""

import pytest
import torch
from kernel_checks import by_device, drawn, near, refused, wide

from tritone.kernels.linear.joined import joined_linear, joined_linear_reference

SHAPES = [(1, 1, 1), (2, 7, 5), (33, 144, 36), (31, 64, 64), (17, 80, 96), (129, 64, 144)]  # rows, K, N
TOLERANCE = {torch.float32: 2e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}


@pytest.mark.parametrize("phase", ["encode", "decode"])
@by_device("shape", SHAPES, SHAPES)
def test_layers_of_one_input_are_one_product(shape, phase, dtype, device):
    rows, width, outputs = shape
    drawn_ones = drawn((rows, width), (3 * outputs, width), (3 * outputs,), seed=rows)
    hidden, weight, bias = [tensor.to(device=device, dtype=dtype) for tensor in drawn_ones]
    weight /= width**0.5
    weights, biases = weight.chunk(3), bias.chunk(3)
    for given, given_biases in (
        ((weight,), (bias,)),
        ([part.clone() for part in weights], (biases[0].clone(), None, biases[2].clone())),
        ([weights[0].clone(), weight[shape[2] :].clone()], (None, None)),
    ):
        found = joined_linear(hidden, given, given_biases, parts=3, phase=phase)
        exact = wide(hidden, *given, *given_biases)
        for part, wanted in zip(found, joined_linear_reference(*exact, parts=3), strict=True):
            assert part.is_contiguous()
            near(part, wanted, dtype, TOLERANCE)


def test_outputs_that_cannot_be_divided_are_refused():
    hidden, weight = drawn((3, 8), (6, 8))
    refused("cannot be divided", joined_linear, hidden, [weight[:5], weight[:1]], [None, None], parts=2)
