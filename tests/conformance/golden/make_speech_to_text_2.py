"""Write speech_to_text_2.safetensors: tiny Speech2Text2 decoders with random weights, inputs and outputs.

transformers 5 no longer has the model, and 4.57 cannot build it (its positions lost the call that makes their
table), so the oracle is 4.44.2, in an environment of its own:

    python -m venv scratch
    scratch/bin/pip install "torch==2.13.0" "transformers==4.44.2"
    scratch/bin/python tests/conformance/golden/make_speech_to_text_2.py

Names in the file start with a configuration's: `<name>.weights.*` is its checkpoint, `<name>.inputs.*` what
the model is called with, `<name>.masks.*` head masks; `<name>.outputs.*` with the inputs alone, attentions
and hidden states of all layers stacked; `<name>.masked.logits` with the masks too, `<name>.alone.logits`
without the encoder; `<name>.steps.logits` token by token with a cache; `<name>.gradients.*` of the loss. The
configurations lie in the metadata.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import Speech2Text2Config, Speech2Text2ForCausalLM

CONFIGS = {
    "scaled": {
        "vocab_size": 13,
        "d_model": 6,
        "decoder_layers": 3,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 7,
        "max_target_positions": 9,
    },
    "odd-width": {
        "vocab_size": 11,
        "d_model": 9,
        "decoder_layers": 2,
        "decoder_attention_heads": 3,
        "decoder_ffn_dim": 5,
        "max_target_positions": 12,
        "activation_function": "gelu",
        "scale_embedding": False,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "tie_word_embeddings": False,
    },
}


def main() -> None:
    """Draw weights and write the models' outputs."""
    torch.manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, fields in CONFIGS.items():
        tensors |= {f"{name}.{key}": value for key, value in golden(fields).items()}
    path = Path(__file__).with_name("speech_to_text_2.safetensors")
    # Copied, since tied weights lie in one place.
    tensors = {key: tensor.detach().clone().contiguous() for key, tensor in tensors.items()}
    save_file(tensors, path, {"configs": json.dumps(CONFIGS)})


def golden(fields: dict[str, object]) -> dict[str, Tensor]:
    """Weights, inputs and outputs of one configuration."""
    config = Speech2Text2Config(**fields)
    model = Speech2Text2ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.4 * torch.randn_like(parameter))
    layers, heads = config.decoder_layers, config.decoder_attention_heads
    tokens = torch.randint(2, config.vocab_size, (1, 7))
    tokens[0, 3] = config.pad_token_id  # which has no position
    encoded = torch.randn(1, 5, config.d_model).requires_grad_()
    labels = torch.randint(config.vocab_size, (1, 7))
    labels[0, 2] = -100
    inputs = {"input_ids": tokens, "encoder_hidden_states": encoded, "labels": labels}
    masks = {"head_mask": torch.rand(layers, heads), "cross_attn_head_mask": torch.rand(layers, heads)}
    output = model(**inputs, output_attentions=True, output_hidden_states=True)
    output.loss.backward()
    steps, past = [], None
    for place in range(tokens.shape[1]):
        step = model(tokens[:, place : place + 1], encoder_hidden_states=encoded, past_key_values=past)
        past = step.past_key_values
        steps.append(step.logits)
    outputs = {
        "loss": output.loss,
        "logits": output.logits,
        "hidden_states": torch.stack(output.hidden_states),
        "attentions": torch.stack(output.attentions),
        "cross_attentions": torch.stack(output.cross_attentions),
    }
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    gradients["encoder_hidden_states"] = encoded.grad
    return {
        **{f"weights.{name}": tensor for name, tensor in model.state_dict().items()},
        **{f"inputs.{name}": tensor for name, tensor in inputs.items()},
        **{f"masks.{name}": tensor for name, tensor in masks.items()},
        **{f"outputs.{name}": tensor for name, tensor in outputs.items()},
        **{f"gradients.{name}": tensor for name, tensor in gradients.items() if tensor is not None},
        "masked.logits": model(**inputs, **masks).logits,
        "alone.logits": model(tokens).logits,
        "steps.logits": torch.cat(steps, dim=1),
    }


if __name__ == "__main__":
    main()
