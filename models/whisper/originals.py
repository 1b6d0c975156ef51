"""Conversion of Whisper checkpoints of CTranslate2 (faster-whisper) and of openai to transformers' files.

Both hold weights and sizes. What else transformers' files have follows from the size of the vocabulary:
ids of special tokens, languages and tasks; only the alignment heads are known by the checkpoint's name.
"""

import re
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

from torch import Tensor

from ..checkpoints.ctranslate2 import CTranslate2Model
from ..checkpoints.originals import Conversion
from ..checkpoints.weights import checked_tensors, unpickled
from ..core.field_types import shown
from .vocabulary import ALIGNMENT_HEADS, NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTILINGUAL, SpecialTokens

_ENCODER, _DECODER = "model.encoder.", "model.decoder."
_CTRANSLATE2 = {
    "conv1/weight": "conv1.weight",
    "conv1/bias": "conv1.bias",
    "conv2/weight": "conv2.weight",
    "conv2/bias": "conv2.bias",
    "embeddings/weight": "embed_tokens.weight",
    "position_encodings/encodings": "embed_positions.weight",
    "layer_norm/gamma": "layer_norm.weight",
    "layer_norm/beta": "layer_norm.bias",
}
_CTRANSLATE2_NORMS = {
    "self_attention": "self_attn_layer_norm",
    "attention": "encoder_attn_layer_norm",
    "ffn": "final_layer_norm",
}
_OPENAI = {
    "positional_embedding": "embed_positions.weight",
    "token_embedding.weight": "embed_tokens.weight",
    "ln_post.": "layer_norm.",
    "ln.": "layer_norm.",
    "conv1.": "conv1.",
    "conv2.": "conv2.",
}
_OPENAI_LAYER = {
    "attn.query.": "self_attn.q_proj.",
    "attn.key.": "self_attn.k_proj.",
    "attn.value.": "self_attn.v_proj.",
    "attn.out.": "self_attn.out_proj.",
    "attn_ln.": "self_attn_layer_norm.",
    "cross_attn.query.": "encoder_attn.q_proj.",
    "cross_attn.key.": "encoder_attn.k_proj.",
    "cross_attn.value.": "encoder_attn.v_proj.",
    "cross_attn.out.": "encoder_attn.out_proj.",
    "cross_attn_ln.": "encoder_attn_layer_norm.",
    "mlp.0.": "fc1.",
    "mlp.2.": "fc2.",
    "mlp_ln.": "final_layer_norm.",
}
# Sizes in openai's "dims", and the fields of WhisperConfig that they are.
_DIMS = {
    "n_mels": ("num_mel_bins",),
    "n_audio_ctx": ("max_source_positions",),
    "n_audio_state": ("d_model",),
    "n_audio_head": ("encoder_attention_heads",),
    "n_audio_layer": ("encoder_layers", "num_hidden_layers"),
    "n_vocab": ("vocab_size",),
    "n_text_ctx": ("max_target_positions",),
    "n_text_state": ("d_model",),
    "n_text_head": ("decoder_attention_heads",),
    "n_text_layer": ("decoder_layers",),
}


def from_ctranslate2(model: CTranslate2Model, config: Mapping[str, Any], where: str) -> Conversion:
    """Convert a Whisper model of CTranslate2.

    Args:
        model: content of its model.bin.
        config: content of its config.json, with alignment_heads, suppress_ids and suppress_ids_begin.
        where: path of the file, for errors.

    Raises:
        ValueError: a variable is missing, has another shape or is unknown.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in model.tensors.items():
        part, _, rest = name.partition("/")
        prefix = {"encoder": _ENCODER, "decoder": _DECODER}.get(part)
        if prefix is None or tensor.dim() == 0 or rest.startswith("projection/"):
            continue  # flags and sizes, and the output projection, which is the embedding
        for own, value in _converted(rest, tensor, where):
            tensors[prefix + own] = value
    heads = {
        part: int(_required(model.tensors, f"{part}/num_heads", where)) for part in ("encoder", "decoder")
    }
    sizes = _sizes(tensors, heads, where)
    return Conversion(_files(sizes, config, where), tensors)


def from_openai(path: Path) -> Conversion:
    """Convert one of openai's own .pt files, which holds sizes, "dims", and "model_state_dict".

    Raises:
        OSError: no such file, or no rights to read it.
        ValueError: a damaged file, one with anything but tensors and numbers, or of another model.
    """
    content = unpickled(path)
    dims = content.get("dims") if isinstance(content, Mapping) else None
    if not isinstance(dims, Mapping) or not all(isinstance(dims.get(name), int) for name in _DIMS):
        raise ValueError(
            f"{path} is not one of openai's Whisper models: it has no dims with {', '.join(_DIMS)}; give a "
            "folder of transformers' files, or of CTranslate2's"
        )
    tensors = {}
    for name, tensor in checked_tensors(content.get("model_state_dict"), path).items():
        part, _, rest = name.partition(".")
        prefix = {"encoder": _ENCODER, "decoder": _DECODER}.get(part)
        own = None if prefix is None else _openai_name(rest)
        if own is None or prefix is None:
            raise ValueError(f"{path} has a tensor {name[:80]!r}, which Whisper does not have")
        tensors[prefix + own] = tensor
    sizes: dict[str, Any] = {field: dims[name] for name, fields in _DIMS.items() for field in fields}
    fc1 = f"{_ENCODER}layers.0.fc1.weight", f"{_DECODER}layers.0.fc1.weight"
    for field, name in zip(("encoder_ffn_dim", "decoder_ffn_dim"), fc1, strict=True):
        sizes[field] = _rows(tensors, name, str(path))
    heads = ALIGNMENT_HEADS.get(path.stem, ())
    if any(layer >= dims["n_text_layer"] or head >= dims["n_text_head"] for layer, head in heads):
        heads = ()  # another model by a known name
    return Conversion(_files(sizes, {"alignment_heads": heads} if heads else {}, str(path)), tensors)


def _converted(name: str, tensor: Tensor, where: str) -> list[tuple[str, Tensor]]:
    """Pairs of transformers' name and tensor of one of CTranslate2's variables, below encoder or decoder."""
    if name in _CTRANSLATE2:
        return [(_CTRANSLATE2[name], tensor)]
    match = re.fullmatch(r"layer_(\d+)/(self_attention|attention|ffn)/(layer_norm|linear_\d)/(\w+)", name)
    if match is None:
        raise ValueError(f"{where} has a variable {name[:80]!r}, which Whisper does not have")
    layer, block, module, leaf = match.groups()
    prefix = f"layers.{int(layer)}."
    if module == "layer_norm":
        leaf = {"gamma": "weight", "beta": "bias"}.get(leaf, leaf)
        return [(f"{prefix}{_CTRANSLATE2_NORMS[block]}.{leaf}", tensor)]
    if block == "ffn":
        return [(f"{prefix}{'fc1' if module == 'linear_0' else 'fc2'}.{leaf}", tensor)]
    attention = f"{prefix}{'self_attn' if block == 'self_attention' else 'encoder_attn'}."
    joined = {
        ("self_attention", "linear_0"): ("q_proj", "k_proj", "v_proj"),
        ("self_attention", "linear_1"): ("out_proj",),
        ("attention", "linear_0"): ("q_proj",),
        ("attention", "linear_1"): ("k_proj", "v_proj"),
        ("attention", "linear_2"): ("out_proj",),
    }.get((block, module))
    if joined is None or len(tensor) % len(joined):
        raise ValueError(f"{where} has {name[:80]!r} of shape {list(tensor.shape)}, which is not Whisper's")
    # Keys have no bias in Whisper: in the joined one they are zeros.
    return [
        (f"{attention}{own}.{leaf}", part)
        for own, part in zip(joined, tensor.chunk(len(joined)), strict=True)
        if (own, leaf) != ("k_proj", "bias")
    ]


def _openai_name(name: str) -> str | None:
    """Name in transformers of a tensor below openai's encoder or decoder; None for an unknown one."""
    match = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    names, prefix = (_OPENAI, "") if match is None else (_OPENAI_LAYER, f"layers.{int(match[1])}.")
    rest = name if match is None else match[2]
    for theirs, ours in names.items():
        if rest == theirs or (theirs.endswith(".") and rest in (f"{theirs}weight", f"{theirs}bias")):
            return prefix + ours + rest.removeprefix(theirs)
    return None


def _sizes(tensors: Mapping[str, Tensor], heads: Mapping[str, int], where: str) -> dict[str, Any]:
    """Fields of WhisperConfig that the shapes of weights give."""
    conv = _required(tensors, f"{_ENCODER}conv1.weight", where)
    if conv.dim() != 3:
        raise ValueError(f"{where} has a first convolution of shape {list(conv.shape)}, which has 3 axes")
    layers = {
        prefix: 1
        + max(
            (int(name.split(".")[3]) for name in tensors if name.startswith(f"{prefix}layers.")), default=-1
        )
        for prefix in (_ENCODER, _DECODER)
    }
    return {
        "d_model": len(conv),
        "num_mel_bins": conv.shape[1],
        "vocab_size": _rows(tensors, f"{_DECODER}embed_tokens.weight", where),
        "encoder_layers": layers[_ENCODER],
        "num_hidden_layers": layers[_ENCODER],
        "decoder_layers": layers[_DECODER],
        "encoder_attention_heads": heads["encoder"],
        "decoder_attention_heads": heads["decoder"],
        "encoder_ffn_dim": _rows(tensors, f"{_ENCODER}layers.0.fc1.weight", where),
        "decoder_ffn_dim": _rows(tensors, f"{_DECODER}layers.0.fc1.weight", where),
        "max_source_positions": _rows(tensors, f"{_ENCODER}embed_positions.weight", where),
        "max_target_positions": _rows(tensors, f"{_DECODER}embed_positions.weight", where),
    }


def _files(sizes: Mapping[str, Any], extra: Mapping[str, Any], where: str) -> dict[str, dict[str, Any]]:
    """Content of the configuration files that transformers writes for a model of these sizes.

    Args:
        sizes: fields of WhisperConfig.
        extra: alignment_heads, suppress_ids and suppress_ids_begin as in CTranslate2's config.json, if known.
        where: source of the model, for errors.
    """
    tokens = SpecialTokens.of_vocabulary(sizes["vocab_size"])
    layers, heads = sizes["decoder_layers"], sizes["decoder_attention_heads"]
    alignment = extra.get("alignment_heads") or [
        [layer, head] for layer, head in product(range(layers // 2, layers), range(heads))
    ]
    default = NON_SPEECH_TOKENS_MULTILINGUAL if tokens.is_multilingual else NON_SPEECH_TOKENS
    suppressed = extra.get("suppress_ids") or [
        *default,
        *(tokens.start, tokens.translate, tokens.transcribe),
        *(tokens.start_of_lm, tokens.start_of_previous, tokens.no_speech),
    ]
    begin = extra.get("suppress_ids_begin") or [220, tokens.end]
    for name, value in (("suppress_ids", suppressed), ("suppress_ids_begin", begin)):
        if not isinstance(value, list) or not all(type(token) is int for token in value):
            raise ValueError(f"{where}: {name} must be a list of token ids, got {shown(value)}")
    ids = {
        "bos_token_id": tokens.start if not tokens.is_multilingual else tokens.end,
        "eos_token_id": tokens.end,
        "pad_token_id": tokens.end,
        "decoder_start_token_id": tokens.start,
        "suppress_tokens": suppressed,
        "begin_suppress_tokens": begin,
    }

    generation: dict[str, Any] = {
        **ids,
        "alignment_heads": alignment,
        "is_multilingual": tokens.is_multilingual,
        "max_initial_timestamp_index": 50,
        "max_length": sizes["max_target_positions"],
        "no_timestamps_token_id": tokens.no_timestamps,
        "prev_sot_token_id": tokens.start_of_previous,
        "return_timestamps": False,
    }
    if tokens.is_multilingual:
        generation["lang_to_id"] = tokens.languages
        generation["task_to_id"] = {"transcribe": tokens.transcribe, "translate": tokens.translate}
    return {
        "config.json": {
            "model_type": "whisper",
            "architectures": ["WhisperForConditionalGeneration"],
            "is_encoder_decoder": True,
            "activation_function": "gelu",
            "scale_embedding": False,
            **sizes,
            **ids,
        },
        "generation_config.json": generation,
        "preprocessor_config.json": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "processor_class": "WhisperProcessor",
            "feature_size": sizes["num_mel_bins"],
            "sampling_rate": 16000,
            "hop_length": 160,
            "chunk_length": sizes["max_source_positions"] // 50,
            "n_fft": 400,
            "padding_value": 0.0,
            "padding_side": "right",
            "return_attention_mask": False,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "model_max_length": 1024,
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "add_prefix_space": False,
        },
    }


def _required(tensors: Mapping[str, Tensor], name: str, where: str) -> Tensor:
    if name not in tensors:
        raise ValueError(f"{where} lacks {name!r}; it is not a whole Whisper model, fetch it again")
    return tensors[name]


def _rows(tensors: Mapping[str, Tensor], name: str, where: str) -> int:
    tensor = _required(tensors, name, where)
    if tensor.dim() == 0:
        raise ValueError(f"{where} has {name!r} without rows; fetch it again")
    return len(tensor)
