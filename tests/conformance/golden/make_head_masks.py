"""Write head_masks.safetensors: a tiny Speech2Text with random weights, inputs, head masks and outputs.

transformers 5 no longer takes head masks, so the oracle is 4.57.6, in an environment of its own:

    python -m venv scratch
    scratch/bin/pip install "torch==2.13.0" "transformers==4.57.6" sentencepiece
    scratch/bin/python tests/conformance/golden/make_head_masks.py

Names in the file: `weights.*` the checkpoint, `inputs.*` what the model is called with, `masks.*` head masks,
`<masks>.*` its outputs with these of them, `gradients.*` of the loss with respect to all three. The
configuration lies in the metadata.
"""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration

CONFIG = {
    "vocab_size": 11,
    "d_model": 6,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 3,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
    "num_conv_layers": 1,
    "conv_kernel_sizes": [3],
    "conv_channels": 4,
    "input_feat_per_channel": 4,
    "max_target_positions": 16,
    "dropout": 0.0,
}
# Ones, zeros and what lies between; no two heads alike.
MASKS = {
    "head_mask": torch.tensor([[1.0, 0.0, 0.5], [0.25, 1.0, 0.0]]),
    "decoder_head_mask": torch.tensor([[0.0, 1.0], [0.75, 0.5], [1.0, 0.0]]),
    "cross_attn_head_mask": torch.tensor([[0.5, 0.0], [1.0, 0.25], [0.0, 1.0]]),
}


def main() -> None:
    """Write the file beside this script."""
    torch.manual_seed(1)
    model = Speech2TextForConditionalGeneration(Speech2TextConfig(**CONFIG)).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            scale = 0.3 if parameter.dim() == 1 else 1.5 / parameter[0].numel() ** 0.5
            parameter.copy_(scale * torch.randn_like(parameter) + name.endswith("layer_norm.weight"))
    inputs = {
        "input_features": torch.randn(1, 14, 4),
        "decoder_input_ids": torch.tensor([[2, 7, 4, 9, 3]]),
        "labels": torch.tensor([[7, 4, 9, 3, 2]]),
    }
    tensors = {f"weights.{name}": tensor for name, tensor in model.state_dict().items()}
    del tensors["weights.lm_head.weight"]  # tied
    tensors |= {f"inputs.{name}": tensor for name, tensor in inputs.items()}
    tensors |= {f"masks.{name}": mask for name, mask in MASKS.items()}
    sets = {"none": {}, **{name: {name: mask} for name, mask in MASKS.items()}, "all": MASKS}
    for name, masks in sets.items():
        tensors[f"{name}.logits"] = model(**inputs, **masks).logits.detach()
    leaves = {name: mask.clone().requires_grad_() for name, mask in MASKS.items()}
    output = model(**inputs, **leaves, output_attentions=True)
    output.loss.backward()
    tensors["all.loss"] = output.loss.detach()
    tensors["all.encoder_last_hidden_state"] = output.encoder_last_hidden_state.detach()
    for name in ("encoder_attentions", "decoder_attentions", "cross_attentions"):
        tensors[f"all.{name}"] = torch.stack(output[name]).detach()
    tensors |= {f"gradients.{name}": leaf.grad for name, leaf in leaves.items()}
    path = Path(__file__).with_name("head_masks.safetensors")
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, path, {"config": json.dumps(CONFIG)})


if __name__ == "__main__":
    main()
