"""Write wav2vec2_to_speech_to_text_2.safetensors: a tiny facebook/s2t-wav2vec2-large-en-de and its outputs.

transformers 5 has no Speech2Text2, so the oracle is 4.44.2, in an environment of its own:

    python -m venv scratch
    scratch/bin/pip install "torch==2.13.0" "transformers==4.44.2"
    scratch/bin/python tests/conformance/golden/make_wav2vec2_to_speech_to_text_2.py

In the file `weights.*` is the checkpoint as that version writes it; for each of the waveforms `inputs.<n>`
there are `logits.<n>` after TOKENS and what `generate` decodes, `greedy.<n>` and `beams.<n>`. config.json,
with its generation options as in old repositories, lies in the metadata.
"""

import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    Speech2Text2Config,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
)

ENCODER = {
    "hidden_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 10,
    "conv_dim": (4, 6, 8),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 7, 3),
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "vocab_size": 9,
    "num_codevectors_per_group": 2,
}
DECODER = {
    "vocab_size": 31,
    "d_model": 10,
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 9,
    "max_target_positions": 40,
    "max_length": 25,
    "num_beams": 3,
}
SAMPLES = (900, 1703, 2400)
TOKENS = [[2, 7, 1, 19, 30]]
SEED = 11  # at which what is decoded differs


def main() -> None:
    """Draw weights and write the model's outputs."""
    torch.manual_seed(SEED)
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        Wav2Vec2Config(**ENCODER), Speech2Text2Config(**DECODER)
    )
    model = SpeechEncoderDecoderModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if name.endswith("original0"):
                parameter.copy_(3 + 0.5 * noise)
            elif parameter.dim() == 1:
                parameter.copy_((1 if name.endswith("weight") else 0) + 0.2 * noise)
            elif parameter.requires_grad:
                parameter.copy_(1.7 * noise / parameter[0].numel() ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        config_json = (Path(folder) / "config.json").read_text()
        tensors = {
            f"weights.{name}": tensor for name, tensor in load_file(f"{folder}/model.safetensors").items()
        }
    for samples in SAMPLES:
        inputs = torch.randn(1, samples)
        tensors[f"inputs.{samples}"] = inputs
        with torch.no_grad():
            tensors[f"logits.{samples}"] = model(inputs, decoder_input_ids=torch.tensor(TOKENS)).logits
        tensors[f"greedy.{samples}"] = model.generate(inputs, num_beams=1)
        tensors[f"beams.{samples}"] = model.generate(inputs)
    path = Path(__file__).with_name("wav2vec2_to_speech_to_text_2.safetensors")
    save_file(
        {key: tensor.contiguous() for key, tensor in tensors.items()}, path, {"config.json": config_json}
    )


if __name__ == "__main__":
    main()
