"""Waveform encoders for tests: recordings of noise, padded and packed, and transformers' checkpoints."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

import tritone


def noise(*lengths: int) -> list[Tensor]:
    """Recordings [samples] of these lengths."""
    return [torch.randn(length, generator=torch.Generator().manual_seed(length)) for length in lengths]


def waveform(samples: int) -> Tensor:
    """[samples], unlike that of another length."""
    draw = torch.Generator().manual_seed(samples)
    hiss = torch.randn(samples, generator=draw)
    return hiss + (torch.arange(samples) * (0.02 + 0.3 * torch.rand((), generator=draw))).sin()


def offsets(rows: list[Tensor]) -> Tensor:
    """Offsets of rows that will lie end to end: int32 [n + 1]."""
    return torch.tensor([0, *map(len, rows)]).cumsum(0).int()


def packed(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Recordings end to end, [samples, 1], and their offsets."""
    return torch.cat(rows)[:, None], offsets(rows)


def padded(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Recordings [batch, longest] with zeros behind, and their mask."""
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    return values, torch.arange(values.shape[1])[None] < torch.tensor([len(row) for row in rows])[:, None]


def tiny_encoder(family: str = "Wav2Vec2", **fields: Any) -> Any:
    """Encoder of two layers of width 12 in evaluation mode; a frame is 12 samples."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "conv_dim": (6, 8),
        "conv_stride": (4, 3),
        "conv_kernel": (8, 5),
        "num_conv_pos_embeddings": 4,
        "num_conv_pos_embedding_groups": 2,
        "mask_time_length": 2,
    }
    if family == "SEWD":
        sizes |= {"position_buckets": 4, "max_position_embeddings": 9}
    config = getattr(tritone, f"{family}Config")(**{**sizes, **fields})
    return getattr(tritone, f"{family}Model")(config).eval()


# Fields of a configuration with which training draws nothing.
NO_CHANCE = {
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
}

SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "conv_dim": (7, 9, 11),
    "conv_stride": (5, 2, 3),
    "conv_kernel": (10, 3, 4),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_length": 3,
}
# Name: the family, and fields of its configuration that are not its defaults.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("Wav2Vec2", {**SMALL}),
    "wav2vec2-layer-stable-adapter": (
        "Wav2Vec2",
        {
            **SMALL,
            "feat_extract_norm": "layer",
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "num_conv_pos_embeddings": 5,
            "num_conv_pos_embedding_groups": 1,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-3,
            "add_adapter": True,
            "num_adapter_layers": 2,
            "output_hidden_size": 14,
        },
    ),
    "wav2vec2-group-stable-bias-adapter": (
        "Wav2Vec2",
        {
            **SMALL,
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "feat_extract_activation": "relu",
            "num_conv_pos_embedding_groups": 24,
            "conv_dim": (8, 24),
            "conv_stride": (7, 3),
            "conv_kernel": (7, 5),
            "add_adapter": True,
            "num_adapter_layers": 1,
            "adapter_stride": 3,
            "adapter_kernel_size": 2,
            "mask_time_prob": 0.0,
        },
    ),
    "hubert": ("Hubert", {**SMALL, "num_conv_pos_embeddings": 7}),
    "hubert-layer-stable": (
        "Hubert",
        {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ),
    "hubert-batch-norm": (
        "Hubert",
        {**SMALL, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False, "feat_proj_dropout": 0.2},
    ),
    "unispeech": ("UniSpeech", {**SMALL, "num_hidden_layers": 1, "num_conv_pos_embeddings": 1}),
    "unispeech-stable": ("UniSpeech", {**SMALL, "do_stable_layer_norm": True, "conv_bias": True}),
    "unispeech-sat": ("UniSpeechSat", {**SMALL, "mask_time_prob": 0.0, "feat_extract_norm": "layer"}),
    "unispeech-sat-stable": (
        "UniSpeechSat",
        {**SMALL, "do_stable_layer_norm": True, "num_conv_pos_embeddings": 9, "hidden_act": "relu"},
    ),
    "sew": ("SEW", {**SMALL}),
    "sew-squeeze-3": (
        "SEW",
        {**SMALL, "squeeze_factor": 3, "num_conv_pos_embeddings": 5, "feat_extract_norm": "layer"},
    ),
    "sew-no-projection": (
        "SEW",
        {
            **SMALL,
            "squeeze_factor": 1,
            "conv_dim": (7, 9, 24),
            "num_conv_pos_embeddings": 4,
            "conv_bias": True,
        },
    ),
    # Large enough for the blocked paths of the matrix library.
    "middle-group": (
        "Wav2Vec2",
        {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "conv_dim": (64, 96, 128),
            "conv_stride": (5, 4, 4),
            "conv_kernel": (10, 4, 3),
            "num_conv_pos_embeddings": 32,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
}


# Recordings have up to 130 tokens, so that the buckets of all but the first are passed.
_SEW_D: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "few buckets, layer norm, projections of their own, squeezed by 3": {
        "position_buckets": 6,
        "max_position_embeddings": 30,
        "share_att_key": False,
        "feat_extract_norm": "layer",
        "squeeze_factor": 3,
        "conv_bias": True,
        "num_conv_pos_embeddings": 5,
        "layer_norm_eps": 1e-3,
        "feature_layer_norm_eps": 1e-2,
    },
    "odd buckets, position to content": {
        "position_buckets": 5,
        "max_position_embeddings": 11,
        "pos_att_type": ("p2c",),
        "share_att_key": False,
        "num_conv_pos_embeddings": 9,
    },
    "no buckets, content to position, no squeeze": {
        "position_buckets": -1,
        "max_position_embeddings": 20,
        "pos_att_type": ("c2p",),
        "norm_rel_ebd": "none",
        "squeeze_factor": 1,
        "hidden_act": "gelu_new",
    },
    "a convolution beside the first layer": {
        "conv_kernel_size": 3,
        "conv_groups": 2,
        "conv_act": "gelu",
        "hidden_dropout_prob": 0.2,
        "max_relative_positions": 13,
        "position_buckets": 8,
        "norm_rel_ebd": "none | layer_norm",
    },
    "the convolution as it comes, no projection": {
        "conv_kernel_size": 5,
        "hidden_dropout_prob": 0.0,
        "conv_dim": (7, 9, 24),
        "feat_proj_dropout": 0.2,
        "mask_time_prob": 0.0,
    },
    "positions in no term": {"pos_att_type": (), "feat_extract_activation": "relu"},
    # Large enough for the blocked paths of the matrix library.
    "middle": {
        "hidden_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 256,
        "conv_dim": (64, 96, 128),
        "position_buckets": 32,
        "max_position_embeddings": 64,
        "num_conv_pos_embeddings": 32,
    },
    "no positions": {"relative_attention": False, "share_att_key": False},
}
SPECS |= {
    f"sew-d: {name}": ("SEWD", {**SMALL, "num_hidden_layers": 3, **fields}) for name, fields in _SEW_D.items()
}
SEW_D = [name for name in SPECS if name.startswith("sew-d")]


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    family: str
    folder: Path
    theirs: Any
    ours: Any

    @property
    def tolerance(self) -> float:
        """Greatest difference of outputs: SEW-D's attention adds three products."""
        return 2e-4 if self.family == "SEWD" else 1e-4


def their_class(family: str, kind: str) -> Any:
    """Class of transformers."""
    return getattr(transformers, f"{family}{kind}")


def make_pair(name: str, folder: Path) -> Pair:
    """Write one of `SPECS` and load it in both libraries.

    At its weights outputs vary with the input and attention is far from even; norms and biases vary too, or
    leaving one out goes unseen.
    """
    family, fields = SPECS[name]
    torch.manual_seed(sum(map(ord, name.removeprefix("sew-d: "))))
    model = their_class(family, "Model")(their_class(family, "Config")(**fields))
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            drawn = torch.randn_like(tensor)
            if key.lower().replace("_", "").endswith(("norm.weight", "original0", "runningvar")):
                tensor.copy_(1 + 0.2 * drawn.clamp(-2, 2))
            elif tensor.dim() < 2:
                tensor.copy_(0.2 * drawn)
            elif "rel_embeddings" in key:
                tensor.copy_(drawn)
            else:
                tensor.copy_(1.2 * drawn / tensor[0].numel() ** 0.5)
    model.save_pretrained(folder)
    eager = {} if family == "SEWD" else {"attn_implementation": "eager"}
    theirs = type(model).from_pretrained(folder, **eager).eval()
    return Pair(family, folder, theirs, getattr(tritone, f"{family}Model").from_pretrained(folder))


def assert_close(ours: Tensor, theirs: Tensor, tolerance: float) -> None:
    """Compare values that vary; otherwise nothing would be compared."""
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < tolerance
    assert float(theirs.std()) > max(50 * tolerance, float(theirs.abs().mean()) / 5)


def compare_gradients(ours: Any, theirs: Any, tolerance: float, least: float) -> int:
    """Compare gradients within `tolerance` of each one's largest entry, or `least`; returns their number."""
    compared = 0
    for name, parameter in theirs.named_parameters():
        gradient = ours.get_parameter(name).grad
        assert (gradient is None) == (parameter.grad is None), name
        if gradient is not None:
            scale = max(float(parameter.grad.abs().max()), least)
            assert float((gradient - parameter.grad).abs().max()) < tolerance * scale, name
            compared += 1
    return compared
