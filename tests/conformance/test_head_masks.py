"""Head masks against golden outputs of transformers 4.57.6, the last that takes them.

`golden/make_head_masks.py` made them, and says how.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from tritone.models.speech_to_text.model import Speech2TextConfig, Speech2TextForConditionalGeneration

GOLDEN = Path(__file__).with_name("golden") / "head_masks.safetensors"


def part(golden: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors whose names start so, without that start."""
    start = f"{name}."
    return {key.removeprefix(start): tensor for key, tensor in golden.items() if key.startswith(start)}


def close(ours: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    with safe_open(GOLDEN, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@pytest.fixture(scope="module")
def model(golden: dict[str, Tensor]) -> Speech2TextForConditionalGeneration:
    with safe_open(GOLDEN, "pt") as file:
        config = json.loads(file.metadata()["config"])
    model = Speech2TextForConditionalGeneration(Speech2TextConfig(**config)).eval()
    missing, unexpected = model.load_state_dict(part(golden, "weights"), strict=False)
    assert (missing, unexpected) == (["lm_head.weight"], [])  # which is tied
    return model


@pytest.mark.parametrize("name", ["none", "head_mask", "decoder_head_mask", "cross_attn_head_mask", "all"])
@torch.inference_mode()
def test_each_mask_gives_the_golden_logits(golden: Any, model: Any, name: str) -> None:
    masks = part(golden, "masks")
    given = masks if name == "all" else {key: mask for key, mask in masks.items() if key == name}
    logits = model(**part(golden, "inputs"), **given).logits
    close(logits, golden[f"{name}.logits"])
    others = [golden[key] for key in golden if key.endswith(".logits") and not key.startswith(f"{name}.")]
    assert all((logits - other).abs().max() > 0.05 for other in others)


@torch.inference_mode()
def test_returned_weights_are_the_masked_ones(golden: Any, model: Any) -> None:
    output = model(**part(golden, "inputs"), **part(golden, "masks"), output_attentions=True)
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        close(torch.stack(output[name]), golden[f"all.{name}"])
    close(output.encoder_last_hidden_state, golden["all.encoder_last_hidden_state"])
    close(output.logits, golden["all.logits"])


def test_the_gradient_of_a_mask_says_what_a_head_is_worth(golden: Any, model: Any) -> None:
    masks = {name: mask.clone().requires_grad_() for name, mask in part(golden, "masks").items()}
    loss = model(**part(golden, "inputs"), **masks).loss
    close(loss.detach(), golden["all.loss"])
    torch.autograd.backward(loss, inputs=list(masks.values()))
    for name, mask in masks.items():
        close(mask.grad, golden[f"gradients.{name}"])


@torch.inference_mode()
def test_encoder_and_decoder_alone_take_them_too(golden: Any, model: Any) -> None:
    inputs, masks = part(golden, "inputs"), part(golden, "masks")
    encoded = model.get_encoder()(inputs["input_features"], head_mask=masks["head_mask"]).last_hidden_state
    close(encoded, golden["all.encoder_last_hidden_state"])
    decoded = model.get_decoder()(
        inputs["decoder_input_ids"],
        encoder_hidden_states=encoded,
        head_mask=masks["decoder_head_mask"],
        cross_attn_head_mask=masks["cross_attn_head_mask"],
    )
    close(model.lm_head(decoded.last_hidden_state), golden["all.logits"])


@torch.inference_mode()
def test_a_mask_may_be_one_entry_a_layer(golden: Any, model: Any) -> None:
    inputs, masks = part(golden, "inputs"), part(golden, "masks")
    wanted = model(**inputs, head_mask=torch.stack([torch.ones(3), masks["head_mask"][1]])).logits
    assert torch.equal(model(**inputs, head_mask=[None, masks["head_mask"][1]]).logits, wanted)
    halved = model(**inputs, decoder_head_mask=torch.tensor([1.0, 0.5, 1.0])).logits
    wanted = model(**inputs, decoder_head_mask=torch.tensor([[1.0, 1.0], [0.5, 0.5], [1.0, 1.0]])).logits
    assert torch.equal(halved, wanted)


@pytest.mark.parametrize(
    ("name", "mask", "problem"),
    [
        (
            "head_mask",
            torch.ones(3, 3),
            r"head_mask must have one entry for each of the 2 layers, got \[3, 3\]",
        ),
        ("head_mask", torch.ones(2, 2), r"head_mask must have one number for each of the 3 heads"),
        (
            "decoder_head_mask",
            [None],
            "decoder_head_mask must have one entry for each of the 3 layers, got 1 ",
        ),
        ("cross_attn_head_mask", torch.tensor(1.0), "cross_attn_head_mask must have one entry"),
    ],
)
def test_a_mask_that_does_not_fit_is_refused_by_name(
    golden: Any, model: Any, name: str, mask: Any, problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        model(**part(golden, "inputs"), **{name: mask})
