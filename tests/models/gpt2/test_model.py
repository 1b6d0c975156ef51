"""GPT-2's configuration, transposed weights and checkpoints; see tests/conformance for transformers."""

import warnings
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from text_families import make
from torch import Tensor
from training import assert_each_dropout_draws

from tritone.models.gpt2.config import GPT2Config
from tritone.models.gpt2.layers import Conv1D
from tritone.models.gpt2.model import GPT2LMHeadModel, GPT2Model

TOKENS = torch.tensor([[4, 9, 0, 17, 30]])
decoder = partial(make, "GPT2", "LMHeadModel", add_cross_attention=True)


def encoded(count: int = 7) -> Tensor:
    return torch.randn(1, count, 24, generator=torch.Generator().manual_seed(count))


def test_a_weight_is_transposed_once_and_again_when_it_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    layer, hidden = Conv1D(20, 24, "decode"), torch.randn(3, 24)
    torch.nn.init.normal_(layer.weight)
    made = []
    monkeypatch.setattr(
        "tritone.models.gpt2.layers._transposed",
        lambda weight: made.append(1) or weight.detach().t().contiguous(),
    )
    with torch.inference_mode():
        first = layer(hidden)
        assert torch.equal(layer(hidden), first)
    torch.testing.assert_close(first, hidden @ layer.weight + layer.bias)
    assert made == [1]
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    layer(hidden).sum().backward()  # with gradients the weight itself is read
    assert made == [1]
    optimizer.step()
    with torch.inference_mode():
        torch.testing.assert_close(layer(hidden), hidden @ layer.weight + layer.bias)
    assert made == [1, 1]


def test_a_weight_that_learns_nothing_lets_gradients_through() -> None:
    model = decoder().requires_grad_(False)
    source = encoded().requires_grad_()
    with torch.no_grad():
        model(TOKENS, encoder_hidden_states=encoded())
    model(TOKENS, encoder_hidden_states=source).logits.sum().backward()
    assert source.grad.any()


def test_fresh_weights_on_the_residual_path_are_smaller_the_more_layers_there_are() -> None:
    torch.manual_seed(0)
    block = GPT2Model(GPT2Config(n_embd=96, n_head=4, n_layer=8, vocab_size=9)).h[3]
    for weight, wanted in (
        (block.attn.c_attn.weight, 0.02),
        (block.attn.c_proj.weight, 0.005),
        (block.mlp.c_fc.weight, 0.02),
        (block.mlp.c_proj.weight, 0.005),
    ):
        torch.testing.assert_close(weight.std(), torch.tensor(wanted), rtol=0.1, atol=0)


@pytest.mark.parametrize("prefix", ["", "transformer."])
def test_older_checkpoints_with_masks_load_without_a_warning(prefix: str, tmp_path: Path) -> None:
    model = decoder()
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors = {prefix + name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        tensors[f"{prefix}h.{layer}.attn.bias"] = torch.ones(1, 1, 12, 12)
        tensors[f"{prefix}h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
        tensors[f"{prefix}h.{layer}.crossattention.bias"] = torch.ones(1, 1, 12, 12)
    save_file(tensors, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = GPT2LMHeadModel.from_pretrained(tmp_path)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


def test_dropout_of_a_decoder_is_drawn_in_training_everywhere_that_the_configuration_says() -> None:
    assert_each_dropout_draws(
        decoder,
        lambda model: model(TOKENS, encoder_hidden_states=encoded()).logits,
        ("resid_pdrop", "embd_pdrop", "attn_pdrop"),
    )


def test_a_decoder_in_half_precision_stays_near_the_whole() -> None:
    model = decoder()
    with torch.inference_mode():
        wanted = model(TOKENS, encoder_hidden_states=encoded()).logits
        model = model.bfloat16()
        output = model(TOKENS, encoder_hidden_states=encoded().bfloat16()).logits
    assert output.dtype == torch.bfloat16
    assert (output.float() - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_kernels_give_the_same(kernels_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, source = decoder(n_inner=17).to(kernels_on), encoded().to(kernels_on)
    with torch.inference_mode():
        output = model(TOKENS.to(kernels_on), encoder_hidden_states=source).logits.cpu()
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
        wanted = model.cpu()(TOKENS, encoder_hidden_states=source.cpu()).logits
    torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-4)
