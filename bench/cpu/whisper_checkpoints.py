"""Checkpoints of the Whisper benchmark: tiny.en for every engine, or a tiny random one for smoke runs."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel

import tritone
from tritone.engine.builtin_models import ENGLISH

SPECIAL = ["<|endoftext|>", "<|startoftranscript|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
TIMES = 1501  # tokens


@dataclass(frozen=True, slots=True)
class Checkpoints:
    """One checkpoint in the formats that the engines read."""

    title: str
    tritone: Path
    transformers: Path
    ctranslate2: Path | None  # None for random weights, of which there is no such folder

    def of(self, engine: str) -> Path | None:
        """The folder that an engine reads."""
        return {
            "tritone": self.tritone,
            "transformers": self.transformers,
            "faster-whisper": self.ctranslate2,
        }[engine]


def english(folder: Path) -> Checkpoints:
    """Whisper tiny.en of the extra `english`, written to `folder` for transformers.

    Raises:
        OSError: the extra is not installed.
    """
    source = ENGLISH.folder
    tritone.WhisperForConditionalGeneration.from_pretrained(source).save_pretrained(folder)
    tritone.WhisperProcessor.from_pretrained(source).save_pretrained(folder)
    return Checkpoints("Whisper tiny.en (37.8 M parameters)", source, folder, source)


def random_tiny(folder: Path) -> Checkpoints:
    """Random weights of a tiny size in `folder`, whose texts are letters without a meaning."""
    letters = sorted(ByteLevel.alphabet())
    times = [f"<|{index * 0.02:.2f}|>" for index in range(TIMES)]
    ids = {name: len(letters) + index for index, name in enumerate([*SPECIAL, *times])}
    end, start, previous, _, no_times = (ids[name] for name in SPECIAL)
    torch.manual_seed(0)
    config = tritone.WhisperConfig(
        vocab_size=len(letters) + len(ids),
        d_model=16,
        **{f"{half}_layers": 1 for half in ("encoder", "decoder")},
        **{f"{half}_attention_heads": 2 for half in ("encoder", "decoder")},
        **{f"{half}_ffn_dim": 32 for half in ("encoder", "decoder")},
        max_target_positions=32,
        decoder_start_token_id=start,
        begin_suppress_tokens=[end],
        **{f"{name}_token_id": end for name in ("pad", "bos", "eos")},
    )
    model = tritone.WhisperForConditionalGeneration(config)
    model.generation_config = type(model.generation_config)(
        **{f"{name}_token_id": end for name in ("pad", "bos", "eos")},
        decoder_start_token_id=start,
        prev_sot_token_id=previous,
        no_timestamps_token_id=no_times,
        max_initial_timestamp_index=50,
        is_multilingual=False,
        max_length=16,
    )
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(
        json.dumps({letter: index for index, letter in enumerate(letters)} | {SPECIAL[0]: end})
    )
    (folder / "merges.txt").write_text("#version: 0.2\n")
    flags = {"lstrip": False, "rstrip": False, "normalized": False}
    added = {
        str(index): {"content": name, "special": name in SPECIAL, **flags} for name, index in ids.items()
    }
    tokens = {f"{name}_token": SPECIAL[0] for name in ("pad", "bos", "eos", "unk")}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            {
                "tokenizer_class": "WhisperTokenizer",
                "processor_class": "WhisperProcessor",
                "additional_special_tokens": SPECIAL,
                "added_tokens_decoder": added,
                **tokens,
            }
        )
    )
    tritone.WhisperFeatureExtractor().save_pretrained(folder)
    return Checkpoints("Whisper of one narrow layer, random weights", folder, folder, None)
