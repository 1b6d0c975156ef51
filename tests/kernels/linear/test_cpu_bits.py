"""The tuned operations on the CPU: a row's bits are its own in both dtypes, and changed weights are seen."""

import pytest
import torch
from kernel_checks import noise
from torch import Tensor, nn

from tritone.kernels.attention.flash import flash_attention, flash_attention_reference
from tritone.kernels.attention.kv_cache import PAGE_SIZE
from tritone.kernels.attention.paged.reference import paged_attention, paged_attention_reference
from tritone.kernels.conv.subsample import conv_subsample, conv_subsample_reference
from tritone.kernels.linear.cpu import packs
from tritone.kernels.linear.gemm import ACTIVATIONS, linear
from tritone.kernels.runtime.packing import cumulative

DTYPES = [torch.float32, torch.bfloat16]
LENGTHS = [1, 15, 16, 17, 63, 64, 65, 200, 384, 400, 777]


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape", [(256, 2048), (2048, 256), (768, 3072), (37, 101), (144, 30), (900, 2)], ids=str
)
@pytest.mark.parametrize("way", [("relu", "encode"), ("gelu", "encode"), (None, "decode")], ids=str)
def test_a_row_has_the_same_bits_in_a_call_of_any_number_of_rows(way, shape, dtype):
    (activation, phase), (width, outputs) = way, shape
    hidden, weight = noise(2100, width, dtype=dtype), noise(outputs, width, dtype=dtype)
    whole = linear(hidden, weight, activation=activation, phase=phase)
    for rows in (1, 2, 15, 17, 31, 33, 48, 64, 127, 129, 160, 161, 512, 1023, 1024, 1025, 2049):
        for start in (0, 7):
            part = slice(start, start + rows)
            own = linear(hidden[part].clone(), weight, activation=activation, phase=phase)
            assert torch.equal(own, whole[part]), rows


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("heads", [(4, 64), (3, 11), (1, 33)], ids=str)
@pytest.mark.parametrize("pay", [True, False], ids=["by products", "fused"])
def test_a_sequence_has_the_same_bits_alone_and_among_others(pay, heads, dtype, monkeypatch):
    if pay and not packs(dtype):
        pytest.skip(f"oneDNN does not multiply {dtype} here")
    monkeypatch.setattr("tritone.kernels.attention.flash.products_pay", lambda dtype: pay)
    tokens = sum(LENGTHS)
    query, key, value = (noise(tokens + extra, *heads, dtype=dtype)[:tokens] for extra in range(3))
    cu = cumulative(LENGTHS)
    together = flash_attention(query, key, value, cu, cu)
    for start, end in zip(cu.tolist(), cu.tolist()[1:], strict=False):
        own = slice(start, end)
        one = torch.tensor([0, end - start], dtype=torch.int32)
        alone = flash_attention(query[own].clone(), key[own].clone(), value[own].clone(), one, one)
        assert torch.equal(alone, together[own]), end - start
    # Both ways are close to the reference, not only the one that this machine takes.
    wanted = flash_attention_reference(query.float(), key.float(), value.float(), cu, cu)
    close = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(together.float(), wanted, rtol=close, atol=close)


class Pages:
    """Eight requests with `beams` hypotheses each, whose pages are in random order."""

    def __init__(self, heads: tuple[int, int], beams: int, shared: bool, dtype: torch.dtype) -> None:
        self.lengths = [1, 2, 8, 16, 17, 33, 8, 100]
        self.beams, self.shared = beams, shared
        tables = len(self.lengths) * (1 if shared else beams)
        self.keys, self.values = (noise(tables * 7 + 1, PAGE_SIZE, *heads, dtype=dtype) for _ in range(2))
        order = torch.randperm(tables * 7, generator=torch.Generator().manual_seed(0))
        self.tables = order.view(tables, 7).int()
        rows = len(self.lengths) * beams
        self.query = noise(rows, *heads, dtype=dtype)
        self.origin = torch.randint(0, beams, (rows, 100), generator=torch.Generator().manual_seed(1)).int()

    def run(self, requests: list[int], call=paged_attention) -> list[Tensor]:
        rows = torch.tensor([index * self.beams + k for index in requests for k in range(self.beams)])
        out = call(
            self.query[rows],
            self.keys,
            self.values,
            self.tables[requests] if self.shared else self.tables[rows],
            torch.tensor([self.lengths[index] for index in requests], dtype=torch.int32),
            cumulative([self.beams] * len(requests)),
            scale=self.query.shape[2] ** -0.5,
            origin=None if self.shared else self.origin[rows],
        )
        return list(out.split(self.beams))


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shared", [True, False], ids=["shared pages", "own pages"])
@pytest.mark.parametrize("beams", [1, 5])
@pytest.mark.parametrize("heads", [(4, 64), (3, 11), (1, 33)], ids=str)
def test_a_request_has_the_same_bits_alone_and_among_others(heads, beams, shared, dtype):
    pages = Pages(heads, beams, shared, dtype)
    everyone = list(range(len(pages.lengths)))
    together = pages.run(everyone)
    wanted = pages.run(everyone, paged_attention_reference)
    for index in everyone:
        assert torch.equal(pages.run([index])[0], together[index]), pages.lengths[index]
        close = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(together[index], wanted[index], rtol=close, atol=close)
    backwards = pages.run(everyone[::-1])
    assert all(torch.equal(a, b) for a, b in zip(backwards[::-1], together, strict=True))


def test_unwritten_rows_of_a_page_are_not_read():
    pages = Pages((2, 16), 1, False, torch.float32)
    before = pages.run([2])[0]
    pages.keys[pages.tables[2, 0], 8:] = pages.values[pages.tables[2, 0], 8:] = float("nan")
    assert torch.equal(pages.run([2])[0], before)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_nan_stays_nan_behind_an_activation(activation):
    hidden = noise(20, 32)
    hidden[3, 5] = float("nan")
    out = linear(hidden, noise(64, 32), activation=activation)
    assert out[3].isnan().all()
    assert not out[4].isnan().any()


def test_a_weight_that_changes_in_place_is_packed_again():
    layer, hidden = nn.Linear(32, 48), noise(20, 32)
    with torch.no_grad():
        linear(hidden, layer.weight, layer.bias)
        layer.weight.mul_(2)
        torch.testing.assert_close(linear(hidden, layer.weight, layer.bias), layer(hidden))
        layer.to(torch.bfloat16)
        assert linear(hidden.bfloat16(), layer.weight, layer.bias).dtype == torch.bfloat16


def test_a_convolutions_weight_that_changes_in_place_is_packed_again():
    frames, cu = noise(50, 16), cumulative([20, 30])
    weight, bias = noise(32, 16, 5), noise(32)
    conv_subsample(frames, cu, weight, bias)
    weight.mul_(2)
    out, _ = conv_subsample(frames, cu, weight, bias)
    torch.testing.assert_close(
        out, conv_subsample_reference(frames, cu, weight, bias)[0], rtol=1e-5, atol=1e-4
    )
