"""Writers of CTranslate2's model.bin and of openai's .pt, for tiny Whisper models."""

import json
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

SIZES = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 3,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 40,
    "max_source_positions": 50,
    "max_target_positions": 12,
    "num_mel_bins": 8,
}


_NUMBERS = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}


def text(value: str) -> bytes:
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def variable(name: str, value: np.ndarray, number: int | None = None, size: int | None = None) -> bytes:
    number = _NUMBERS[value.dtype.name] if number is None else number
    head = text(name) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
    return head + struct.pack("<BI", number, value.nbytes if size is None else size) + value.tobytes()


def model(
    *variables: bytes, aliases: tuple[tuple[str, str], ...] = (), version: int = 6, spec: str = "WhisperSpec"
) -> bytes:
    """A model.bin of these variables."""
    start = struct.pack("<I", version) + text(spec) + struct.pack("<II", 3, len(variables))
    end = struct.pack("<I", len(aliases)) + b"".join(text(alias) + text(name) for alias, name in aliases)
    return start + b"".join(variables) + end


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.bin"
    path.write_bytes(data)
    return path


def ctranslate2_folder(folder: Path, state: dict[str, Tensor]) -> Path:
    """Write a model as CTranslate2's converter does: joined projections, a bias of zeros for keys."""
    variables = {
        "encoder/num_heads": np.array(2, np.int16),
        "decoder/num_heads": np.array(4, np.int16),
        "decoder/activation": np.array(3, np.int8),
    }

    def put(name: str, *keys: str) -> None:
        given = [state.get(key) for key in keys]
        width = next(len(one) for one in given if one is not None)
        variables[name] = torch.cat([torch.zeros(width) if one is None else one for one in given]).numpy()

    for part in ("encoder", "decoder"):
        home = f"model.{part}."
        for conv in ("conv1", "conv2") if part == "encoder" else ():
            for leaf in ("weight", "bias"):
                put(f"encoder/{conv}/{leaf}", f"{home}{conv}.{leaf}")
        if part == "decoder":
            put("decoder/embeddings/weight", f"{home}embed_tokens.weight")
        put(f"{part}/position_encodings/encodings", f"{home}embed_positions.weight")
        norms = [("layer_norm", "layer_norm")]
        for layer in range(SIZES[f"{part}_layers"]):
            theirs, ours = f"{part}/layer_{layer}/", f"{home}layers.{layer}."
            attentions = {"self_attention": ("self_attn", (3, 1))}
            if part == "decoder":
                attentions["attention"] = ("encoder_attn", (1, 2, 1))
            for block, (name, counts) in attentions.items():
                names = iter(("q_proj", "k_proj", "v_proj", "out_proj"))
                for index, count in enumerate(counts):
                    own = [next(names) for _ in range(count)]
                    for leaf in ("weight", "bias"):
                        put(
                            f"{theirs}{block}/linear_{index}/{leaf}",
                            *(f"{ours}{name}.{one}.{leaf}" for one in own),
                        )
                norms.append((f"layer_{layer}/{block}/layer_norm", f"layers.{layer}.{name}_layer_norm"))
            for index in range(2):
                for leaf in ("weight", "bias"):
                    put(f"{theirs}ffn/linear_{index}/{leaf}", f"{ours}fc{index + 1}.{leaf}")
            norms.append((f"layer_{layer}/ffn/layer_norm", f"layers.{layer}.final_layer_norm"))
        for theirs, ours in norms:
            put(f"{part}/{theirs}/gamma", f"{home}{ours}.weight")
            put(f"{part}/{theirs}/beta", f"{home}{ours}.bias")
    data = model(
        *(variable(name, value) for name, value in sorted(variables.items())),
        aliases=(("decoder/projection/weight", "decoder/embeddings/weight"),),
    )
    folder.mkdir(exist_ok=True)
    write(folder, data)
    config = {"alignment_heads": [[1, 0]], "suppress_ids": [3, 4], "suppress_ids_begin": [5], "lang_ids": []}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def openai_file(path: Path, state: dict[str, Tensor]) -> Path:
    """Write a model as openai's own files are."""
    theirs = {
        "self_attn_layer_norm": "attn_ln",
        "encoder_attn_layer_norm": "cross_attn_ln",
        "final_layer_norm": "mlp_ln",
        "self_attn": "attn",
        "encoder_attn": "cross_attn",
        "q_proj": "query",
        "k_proj": "key",
        "v_proj": "value",
        "out_proj": "out",
        "fc1": "mlp.0",
        "fc2": "mlp.2",
        "layers": "blocks",
        "embed_tokens": "token_embedding",
    }
    renamed = {}
    for name, tensor in state.items():
        parts = [theirs.get(part, part) for part in name.removeprefix("model.").split(".")]
        if parts[1] == "layer_norm":
            parts[1] = "ln_post" if parts[0] == "encoder" else "ln"
        own = ".".join(parts).replace("embed_positions.weight", "positional_embedding")
        renamed[own] = tensor
    dims = {
        "n_mels": 8, "n_audio_ctx": 50, "n_audio_state": 16, "n_audio_head": 2, "n_audio_layer": 2,
        "n_vocab": len(state["model.decoder.embed_tokens.weight"]), "n_text_ctx": 12, "n_text_state": 16,
        "n_text_head": 4, "n_text_layer": 3,
    }  # fmt: skip
    torch.save({"dims": dims, "model_state_dict": renamed}, path)
    return path
