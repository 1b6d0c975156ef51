"""Whisper's generation options of a file: what no model of its size can have is refused by name."""

from typing import Any

import pytest

from tritone.models.whisper.options import WhisperGenerationConfig, resolve_whisper
from tritone.models.whisper.windows import Window

VOCABULARY = 60
GOOD: dict[str, Any] = {
    "decoder_start_token_id": 41,
    "eos_token_id": 40,
    "lang_to_id": {"<|en|>": 42, "<|de|>": 43},
    "task_to_id": {"transcribe": 44, "translate": 45},
    "prev_sot_token_id": 46,
    "no_timestamps_token_id": 48,
    "max_length": 30,
}
OUTSIDE = "names token 60; the model's are 0 to 59"
BAD: list[tuple[str, Any, str]] = [
    ("lang_to_id", {"<|en|>": 42, "<|de|>": 60}, rf"\['<|de|>'\] {OUTSIDE}"),
    ("task_to_id", {"transcribe": 60}, rf"\['transcribe'\] {OUTSIDE}"),
    ("no_timestamps_token_id", 60, OUTSIDE),
    ("no_timestamps_token_id", 0, "is 0; it must be 1 or more"),
    ("no_timestamps_token_id", 59, "is 59, the vocabulary's last"),
    ("prev_sot_token_id", 60, OUTSIDE),
    ("forced_decoder_ids", [[1, 60]], OUTSIDE),
    ("forced_decoder_ids", [[2, 44]], r"\[\(2, 44\)\] must be of places 1, 2, 3"),
    ("prompt_ids", [46, 60], OUTSIDE),
    ("decoder_start_token_id", 60, OUTSIDE),
    ("suppress_tokens", [60], OUTSIDE),
    ("max_new_tokens", 40, "40 and a prompt of 2 tokens are 42, and the decoder has 30 positions"),
    ("language", "xx", r"'xx' is not one of this checkpoint's \(de, en\)"),
]


def options(**changes: Any) -> Any:
    config = WhisperGenerationConfig(**{**GOOD, **changes})
    config.source = "folder/generation_config.json"
    resolved = resolve_whisper(
        config, {"return_timestamps": True}, limit=30, vocabulary=VOCABULARY, window_frames=80, is_long=False
    )
    prompt = resolved.windows.start_tokens
    return resolved, resolved.request(Window(0, 80, prompt, resolved.windows.temperatures[0]))


@pytest.mark.parametrize(("name", "value", "message"), BAD)
def test_an_option_that_the_model_cannot_have_is_refused_by_file_and_name(
    name: str, value: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=f"folder/generation_config.json: {name} ?{message}"):
        options(**{name: value})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", [0.0, 1e-40], "temperature is .*; it must be 0, a number from 1e-30 to 100"),
        ("lang_to_id", {"<|en|>": "x"}, r"lang_to_id\['<\|en\|>'\] must be"),
        ("task_to_id", {"transcribe": None}, r"task_to_id\['transcribe'\] must be"),
        ("lang_to_id", [42], "lang_to_id must be"),
        ("alignment_heads", [[0, -1]], "alignment_heads is .*; it must be pairs"),
        ("patience", 0, "patience is 0.0; it must be above 0"),
        ("patience", "1", "patience must be"),
        ("forced_decoder_ids", [[1]], "forced_decoder_ids is .*; it must be pairs"),
    ],
)
def test_a_value_of_another_kind_is_refused_by_name(name: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WhisperGenerationConfig(**{name: value})


def test_the_largest_first_time_is_one_of_the_vocabulary() -> None:
    resolved, request = options(max_initial_timestamp_index=2**31 - 1)
    assert request.timestamps == resolved.timestamps
    assert resolved.timestamps.max_initial == VOCABULARY
