"""Small random Whisper checkpoints, with windows of one second, and recordings of several windows."""

from pathlib import Path
from typing import Any

import numpy as np
from factories import seeded, tiny_whisper_config
from whisper_tokenizers import SPECIAL, byte_pairs, write_slow_files

import tritone
from tritone.models.whisper.feature_extractor import WhisperFeatureExtractor

WINDOW = 16_000  # samples
_TIMES = 51  # tokens of times, to the end of a window of one second


def write_whisper_checkpoint(
    folder: Path, *, multilingual: bool = True, seconds: int = 1, **generation: Any
) -> Path:
    """Write a checkpoint of random weights.

    Args:
        folder: folder to write to.
        multilingual: False for one that knows English alone.
        seconds: seconds of a window.
        **generation: further fields of generation_config.json.
    """
    first = len(byte_pairs()[0]) - 1
    ids = {name: first + index for index, name in enumerate(SPECIAL)}
    first_time = first + len(SPECIAL)
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    config = tiny_whisper_config(
        vocab_size=first_time + (_TIMES - 1) * seconds + 1,
        max_source_positions=50 * seconds,
        max_target_positions=48,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
    )
    model = seeded(tritone.WhisperForConditionalGeneration, config, seed=3)
    model.save_pretrained(folder)
    write_slow_files(folder)
    WhisperFeatureExtractor(chunk_length=seconds, feature_size=8).save_pretrained(folder)
    fields: dict[str, Any] = {
        "bos_token_id": end,
        "eos_token_id": end,
        "pad_token_id": end,
        "decoder_start_token_id": start,
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "prev_sot_token_id": ids["<|startofprev|>"],
        "max_initial_timestamp_index": 10,
        "is_multilingual": multilingual,
        "suppress_tokens": sorted(set(ids.values()) - {end}),
        "max_length": 24,
    }
    if multilingual:
        tasks = ("transcribe", "translate")
        languages = SPECIAL[2 : SPECIAL.index("<|translate|>")]
        fields["lang_to_id"] = {name: ids[name] for name in languages}
        fields["task_to_id"] = {task: ids[f"<|{task}|>"] for task in tasks}
    tritone.WhisperForConditionalGeneration.generation_config_class(**fields | generation).save_pretrained(
        folder
    )
    return folder


def recording(seconds: float, seed: int = 0) -> np.ndarray:
    """Tones that change every quarter of a second, with some noise."""
    draw = np.random.default_rng(seed)
    count = round(16_000 * seconds)
    tones = np.repeat(draw.uniform(100, 4_000, count // 4_000 + 1), 4_000)[:count]
    loud = np.repeat(draw.uniform(0.01, 0.5, count // 4_000 + 1), 4_000)[:count]
    samples = loud * np.sin(2 * np.pi * np.cumsum(tones) / 16_000) + 0.01 * draw.standard_normal(count)
    return samples.astype(np.float32)
