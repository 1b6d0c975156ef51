"""Whisper models of published sizes without weights, for measurements of host time."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

import tritone
from tritone.models.whisper.languages import LANGUAGES

from .workload import InMemoryProcessor, WordTokenizer

TEXT_TOKENS = 50_257  # of the multilingual vocabularies; then come special tokens and times
_TURBO = {"num_mel_bins": 128, "d_model": 1280, "encoder_layers": 32, "decoder_layers": 4}
_TURBO |= {f"{half}_attention_heads": 20 for half in ("encoder", "decoder")}
_TURBO |= {f"{half}_ffn_dim": 5120 for half in ("encoder", "decoder")}
SIZES: dict[str, dict[str, int]] = {"whisper-tiny": {}, "whisper-large-v3-turbo": _TURBO}
_LANGUAGES = {"whisper-tiny": 99, "whisper-large-v3-turbo": 100}


def build_whisper(name: str, device: torch.device, dtype: torch.dtype) -> Any:
    """A model of one of `SIZES` whose weights are memory as it comes: zeros, untouched, on a fake GPU."""
    languages = list(LANGUAGES)[: _LANGUAGES[name]]
    start = TEXT_TOKENS + 1
    tasks = start + 1 + len(languages)
    no_times = tasks + 5
    config = tritone.WhisperConfig(
        **SIZES[name],
        vocab_size=no_times + 1502,
        pad_token_id=TEXT_TOKENS,
        bos_token_id=TEXT_TOKENS,
        eos_token_id=TEXT_TOKENS,
        decoder_start_token_id=start,
        begin_suppress_tokens=[220, TEXT_TOKENS],
    )
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device, _NoDraws():
            model = tritone.WhisperForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(default)
    model = model.to(dtype).eval()
    model.generation_config = type(model.generation_config)(
        decoder_start_token_id=start,
        eos_token_id=TEXT_TOKENS,
        pad_token_id=TEXT_TOKENS,
        begin_suppress_tokens=[220, TEXT_TOKENS],
        suppress_tokens=[1, 2, 7, 8, 9, 10, *range(tasks, no_times)],
        no_timestamps_token_id=no_times,
        prev_sot_token_id=tasks + 3,
        max_initial_timestamp_index=50,
        is_multilingual=True,
        lang_to_id={f"<|{code}|>": start + 1 + index for index, code in enumerate(languages)},
        task_to_id={"translate": tasks, "transcribe": tasks + 1},
        max_length=448,
    )
    return model


class _NoDraws(TorchFunctionMode):
    """Torch mode that leaves out the functions of `torch.nn.init`: 800 million draws take half a minute."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **(kwargs or {}))


class _TextTokenizer(WordTokenizer):
    """Tokenizer of made-up words that leaves out special tokens and times."""

    def decode(self, token_ids: Sequence[int], **options: Any) -> str:
        return super().decode([token for token in token_ids if token < TEXT_TOKENS], **options)


def whisper_processor(name: str) -> InMemoryProcessor:
    """Processor of one of `SIZES`, whose tokens of text are made-up words."""
    bins = SIZES[name].get("num_mel_bins", 80)
    extractor = tritone.WhisperFeatureExtractor(feature_size=bins)
    return InMemoryProcessor(extractor, _TextTokenizer(TEXT_TOKENS))
