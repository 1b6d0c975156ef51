"""Speech2Text2's decoder against golden outputs of transformers 4, the last release that could build it.

`golden/make_speech_to_text_2.py` made them, and documents how.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from parity import assert_close
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

import tritone

GOLDEN = Path(__file__).with_name("golden") / "speech_to_text_2.safetensors"


@dataclass(frozen=True)
class Golden:
    """One configuration of the golden file."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors whose names start so, without that start."""
        start = f"{name}."
        return {
            key.removeprefix(start): value for key, value in self.tensors.items() if key.startswith(start)
        }

    def model(self, **fields: Any) -> Any:
        """The model in evaluation mode."""
        config = tritone.Speech2Text2Config(**self.config, **fields)
        return tritone.Speech2Text2ForCausalLM.from_pretrained(
            None, config=config, state_dict=self.part("weights")
        )


@pytest.fixture(params=["scaled", "odd-width"])
def golden(request: pytest.FixtureRequest) -> Golden:
    with safe_open(GOLDEN, "pt") as file:
        config = json.loads(file.metadata()["configs"])[request.param]
    start = f"{request.param}."
    tensors = {
        key.removeprefix(start): value for key, value in load_file(GOLDEN).items() if key.startswith(start)
    }
    return Golden(config, tensors)


def test_speech_to_text_2_gives_the_golden_outputs(golden: Golden) -> None:
    with torch.inference_mode():
        output = golden.model()(
            **golden.part("inputs"), output_attentions=True, output_hidden_states=True, use_cache=False
        )
    wanted = golden.part("outputs")
    assert set(output.keys()) == set(wanted)
    for name, tensor in wanted.items():
        assert_close(
            torch.stack(output[name]) if isinstance(output[name], tuple) else output[name], tensor, 1e-5
        )


@torch.inference_mode()
def test_speech_to_text_2_agrees_with_head_masks_without_an_encoder_and_step_by_step(golden: Golden) -> None:
    model, inputs = golden.model(), golden.part("inputs")
    tokens, encoded = inputs["input_ids"], inputs["encoder_hidden_states"]
    assert_close(model(**inputs, **golden.part("masks")).logits, golden.tensors["masked.logits"], 1e-5)
    assert_close(model(tokens).logits, golden.tensors["alone.logits"], 1e-5)
    past, steps = None, []
    for position in range(tokens.shape[1]):
        # A padding token that was generated counts from then on, and not where all tokens come at once.
        output = model(
            tokens[:, position : position + 1], encoder_hidden_states=encoded, past_key_values=past
        )
        past = output.past_key_values
        steps.append(output.logits)
    assert_close(torch.cat(steps, dim=1), golden.tensors["steps.logits"], 1e-5)
    assert (golden.tensors["steps.logits"] - golden.tensors["outputs.logits"]).abs().max() > 0.01


def test_speech_to_text_2_learns_as_there(golden: Golden) -> None:
    model = golden.model(dropout=0.0).train()
    inputs = golden.part("inputs")
    encoded = inputs["encoder_hidden_states"].requires_grad_()
    model(**inputs).loss.backward()
    wanted = golden.part("gradients")
    assert_close(encoded.grad, wanted.pop("encoder_hidden_states"), 1e-5)
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert gradients.keys() == wanted.keys()
    for name, gradient in wanted.items():
        assert_close(gradients[name], gradient, 1e-5)


def test_speech_to_text_2_comes_back_from_its_own_checkpoint(golden: Golden, tmp_path: Path) -> None:
    model = golden.model()
    model.save_pretrained(tmp_path)
    assert tritone.AutoConfig.from_pretrained(tmp_path) == model.config
    again = tritone.Speech2Text2ForCausalLM.from_pretrained(tmp_path)
    tokens = golden.part("inputs")["input_ids"]
    assert torch.equal(again(tokens).logits, model(tokens).logits)
