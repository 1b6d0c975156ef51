"""Whisper's `generate` against transformers at batch size 1: prompts, times, windows, fallbacks."""

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from parity import draw_weights, two_stacks
from torch import Tensor
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

import tritone
from tritone.models.whisper.windows import Decoded, WindowOptions, sequential_windows, window_prompt
from tritone.models.whisper.word_times import token_times

TEXT, SIZE = 40, 92  # tokens of text; of the vocabulary, whose last 41 are times of 0.00 to 0.80 s
END, START, LANGUAGES, TASKS = (
    40,
    41,
    {"<|en|>": 42, "<|de|>": 43, "<|fr|>": 44},
    {"transcribe": 45, "translate": 46},
)
PREVIOUS, NO_SPEECH, NO_TIMES, FIRST_TIME = 48, 49, 50, 51
FRAMES, MELS = 80, 8  # of a window
GENERATION = {
    "decoder_start_token_id": START,
    "eos_token_id": END,
    "bos_token_id": END,
    "pad_token_id": END,
    "suppress_tokens": [1, 2, START, PREVIOUS, NO_SPEECH],
    "begin_suppress_tokens": [3, END],
    "no_timestamps_token_id": NO_TIMES,
    "prev_sot_token_id": PREVIOUS,
    "max_initial_timestamp_index": 10,
    "alignment_heads": [[1, 0], [1, 1]],
    "is_multilingual": True,
    "lang_to_id": LANGUAGES,
    "task_to_id": TASKS,
    "return_timestamps": False,
    "max_length": 48,  # all positions, as published checkpoints have it
}


@pytest.fixture(scope="module")
def whispers(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """One multilingual checkpoint in both libraries, ours loaded from theirs."""
    folder = tmp_path_factory.mktemp("whisper")
    sizes = two_stacks(SIZE, 32, layers=(2, 2), heads=(2, 2), feed_forward=(48, 48))
    ids = {name: GENERATION[name] for name in GENERATION if name.endswith("_id") and "no_" not in name}
    ids.pop("prev_sot_token_id")
    config = transformers.WhisperConfig(
        **{
            **sizes, **ids, "num_mel_bins": MELS, "max_source_positions": FRAMES // 2,
            "max_target_positions": 48, "begin_suppress_tokens": None,
        }
    )  # fmt: skip
    theirs = transformers.WhisperForConditionalGeneration(config).eval()
    torch.manual_seed(11)
    draw_weights(theirs)
    theirs.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(GENERATION))
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(folder).eval()
    theirs.set_attn_implementation("eager")  # which returns weights
    return theirs, tritone.WhisperForConditionalGeneration.from_pretrained(folder)


def features(frames: int, seed: int = 0) -> Tensor:
    """Features [1, mels, frames] that change slowly, as speech does."""
    coarse = torch.randn(1, MELS, frames // 8 + 2, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(coarse, size=frames, mode="linear") * 2


def generated(whispers: tuple[Any, Any], inputs: Tensor, **options: Any) -> tuple[Any, Any]:
    """Results of both libraries."""
    theirs, ours = whispers
    before = copy.deepcopy(theirs.generation_config)
    try:
        wanted = theirs.generate(inputs, **options)
    finally:
        theirs.generation_config = before
    return wanted, ours.generate(inputs, **options)


SHORT: dict[str, dict[str, Any]] = {
    "language detected": {},
    "language and task": {"language": "de", "task": "translate"},
    "language by name": {"language": "french"},
    "task alone": {"task": "transcribe"},
    "beams": {"num_beams": 3, "language": "en"},
    "beams, length penalty": {"num_beams": 4, "language": "en", "length_penalty": 0.3},
    "new tokens": {"language": "en", "max_new_tokens": 5},
    "times": {"return_timestamps": True},
    "times, beams": {"return_timestamps": True, "num_beams": 3},
    "prompt": {"prompt_ids": torch.tensor([PREVIOUS, 5, 9, 13]), "language": "en"},
    "prompt, beams": {"prompt_ids": torch.tensor([PREVIOUS, 5, 9]), "language": "en", "num_beams": 2},
    "repetition penalty": {"language": "en", "repetition_penalty": 1.2},
    "n-grams": {"language": "en", "no_repeat_ngram_size": 2},
}


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("seed", [1, 2])
def test_tokens_of_a_short_recording_are_transformers(
    whispers: tuple[Any, Any], name: str, seed: int
) -> None:
    wanted, got = generated(whispers, features(FRAMES, seed), **SHORT[name])
    assert torch.equal(got, wanted)


def test_the_whole_output_is_transformers(whispers: tuple[Any, Any]) -> None:
    options = {"return_dict_in_generate": True, "output_scores": True, "language": "en", "num_beams": 3}
    wanted, got = generated(whispers, features(FRAMES), **options)
    assert torch.equal(got.sequences, wanted.sequences)
    assert torch.allclose(got.sequences_scores, wanted.sequences_scores, atol=1e-5)
    wanted, got = generated(whispers, features(FRAMES), **{**options, "num_beams": 1})
    assert torch.equal(got.sequences, wanted.sequences)
    for mine, other in zip(got.scores, wanted.scores, strict=True):
        assert torch.allclose(mine, other, atol=1e-4)


def test_detected_languages_are_transformers(whispers: tuple[Any, Any]) -> None:
    theirs, ours = whispers
    inputs = torch.cat([features(FRAMES, seed) for seed in range(8)])
    wanted = torch.cat([theirs.detect_language(row[None]) for row in inputs])
    assert torch.equal(ours.detect_language(inputs), wanted)
    assert len(set(wanted.tolist())) > 1


LONG: dict[str, dict[str, Any]] = {
    "default": {},
    "language": {"language": "de", "task": "transcribe"},
    "conditioned": {"condition_on_prev_tokens": True},
    "beams": {"num_beams": 2, "language": "en"},
    "prompt first": {"prompt_ids": torch.tensor([PREVIOUS, 5, 9]), "condition_on_prev_tokens": True},
    "prompt not conditioned": {"prompt_ids": torch.tensor([PREVIOUS, 5, 9])},
    "prompt everywhere": {
        "prompt_ids": torch.tensor([PREVIOUS, 5, 9]),
        "prompt_condition_type": "all-segments",
        "condition_on_prev_tokens": True,
    },
    "new tokens": {"max_new_tokens": 9},
    "thresholds": {
        "logprob_threshold": -1.0,
        "no_speech_threshold": 0.01,
        "compression_ratio_threshold": 1.2,
    },
    "thresholds, beams": {"logprob_threshold": -0.5, "num_beams": 2, "no_speech_threshold": 0.01},
}


@pytest.mark.parametrize("name", LONG)
@pytest.mark.parametrize("frames", [211, 640])
def test_segments_of_a_long_recording_are_transformers(
    whispers: tuple[Any, Any], name: str, frames: int
) -> None:
    options = {"return_segments": True, "return_timestamps": True, "temperature": 0.0, "language": "en"}
    options |= LONG[name]
    wanted, got = generated(whispers, features(frames, frames), **options)
    assert torch.equal(got["sequences"], wanted["sequences"])
    for mine, other in zip(got["segments"][0], wanted["segments"][0], strict=True):
        assert (mine["start"].item(), mine["end"].item()) == (
            pytest.approx(float(other["start"]), abs=1e-9),
            pytest.approx(float(other["end"]), abs=1e-9),
        )
        assert torch.equal(mine["tokens"], other["tokens"])
        assert mine["idxs"] == other["idxs"]


TOKEN_TIMES: dict[str, dict[str, Any]] = {
    "greedy": {"language": "en"},
    "greedy, times": {"return_timestamps": True},
    "beams": {"language": "en", "num_beams": 2},
    "beams, times": {"language": "en", "return_timestamps": True, "num_beams": 2},
    "prompt": {"language": "en", "prompt_ids": torch.tensor([PREVIOUS, 5, 9, 13])},
    "one token": {"language": "en", "max_new_tokens": 1},
    "two tokens": {"language": "en", "max_new_tokens": 2},
}


@pytest.mark.parametrize("name", TOKEN_TIMES)
@pytest.mark.parametrize("sounding", [None, 80, 63])
def test_times_of_a_short_recordings_tokens_are_transformers(
    whispers: tuple[Any, Any], name: str, sounding: int | None
) -> None:
    options = {"return_token_timestamps": True, "return_segments": True, **TOKEN_TIMES[name]}
    if sounding is not None:
        options["attention_mask"] = (torch.arange(FRAMES) < sounding)[None].long()
    wanted, got = generated(whispers, features(FRAMES, 4), **options)
    assert torch.equal(got["sequences"], wanted["sequences"])
    assert torch.equal(got["token_timestamps"], wanted["token_timestamps"])
    for mine, theirs in zip(got["segments"][0], wanted["segments"][0], strict=True):
        assert torch.equal(mine["token_timestamps"], theirs["token_timestamps"])


@pytest.mark.parametrize("masked", [False, True])
def test_times_of_a_long_recordings_tokens_are_transformers(whispers: tuple[Any, Any], masked: bool) -> None:
    options: dict[str, Any] = {"return_token_timestamps": True, "return_segments": True, "language": "en"}
    options |= {"return_timestamps": True}
    if masked:  # transformers counts beyond a recording's end in its last window without a mask
        options["attention_mask"] = torch.ones(1, 300, dtype=torch.int64)
    wanted, got = generated(whispers, features(300, 5), **options)
    assert torch.equal(got["sequences"], wanted["sequences"])
    assert torch.equal(got["token_timestamps"], wanted["token_timestamps"])
    for mine, theirs in zip(got["segments"][0], wanted["segments"][0], strict=True):
        assert torch.equal(mine["token_timestamps"], theirs["token_timestamps"])


def test_times_of_tokens_are_the_same_alone_and_among_others(whispers: tuple[Any, Any]) -> None:
    ours, rows = whispers[1], torch.cat([features(FRAMES, seed) for seed in range(3)])
    options: dict[str, Any] = {"return_token_timestamps": True, "language": "en"}
    together = ours.generate(rows, **options)["token_timestamps"]
    for row, times in zip(rows, together, strict=True):
        alone = ours.generate(row[None], **options)["token_timestamps"][0]
        assert torch.equal(times[: len(alone)], alone)


def test_times_from_the_prompt_are_openais(whispers: tuple[Any, Any]) -> None:
    """With the prompt's last token, as openai-whisper's timing.py has it, on transformers' weights."""
    theirs, ours = whispers
    prompt, tokens, heads = [START, 42, 45, NO_TIMES], [5, 6, 9, 13, 8, 30, END], [(1, 0), (1, 1)]
    inputs, ids = features(FRAMES, 6), torch.tensor([[*prompt, *tokens]])
    with torch.no_grad():
        passed = theirs(inputs, decoder_input_ids=ids, output_attentions=True)
    weights = torch.stack([passed.cross_attentions[layer][0, head] for layer, head in heads])
    weights = weights[:, len(prompt) - 1 : -1, : 70 // 2]
    deviation, mean = torch.std_mean(weights, dim=-2, keepdim=True, unbiased=False)
    matrix = _median_filter((weights - mean) / deviation, 7).mean(0)
    rows, columns = _dynamic_time_warping(-matrix.double().numpy())
    begins = [int(columns[rows == row][0]) * 0.02 for row in range(len(tokens))]

    options: dict[str, Any] = {"frames": 70, "text_tokens": END, "from_prompt": True}
    encoded = ours.get_encoder()(inputs).last_hidden_state[0].detach()
    times = token_times(ours, encoded, prompt, tokens, heads, **options)
    assert times.seconds == pytest.approx([*begins[1:], begins[-1]])
    scores = passed.logits[0, len(prompt) - 1 : -1, :END].softmax(-1)
    wanted = [*(scores[place, token].item() for place, token in enumerate(tokens[:-1])), 0.0]
    assert times.probabilities == pytest.approx(wanted, abs=1e-5)


def test_times_of_tokens_need_alignment_heads(
    whispers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = whispers[1]
    monkeypatch.setitem(ours.generation_config.options, "alignment_heads", None)
    with pytest.raises(ValueError, match="need alignment_heads"):
        ours.generate(features(FRAMES), return_token_timestamps=True)


def test_the_same_windows_fall_back_to_higher_temperatures(
    whispers: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Attempts of each window; draws differ, so texts at higher temperatures do, and windows behind them."""
    ours = whispers[1]
    tried: dict[str, list[float]] = {"theirs": [], "ours": []}
    generate = transformers.GenerationMixin.generate

    def record(model: Any, *args: Any, **options: Any) -> Any:
        config = options["generation_config"]
        tried["theirs"].append(config.temperature if config.do_sample else 0.0)
        return generate(model, *args, **options)

    request = type(ours.whisper_options({})).request

    def remember(self: Any, window: Any, *args: Any) -> Any:
        tried["ours"].append(window.temperature)
        return request(self, window, *args)

    monkeypatch.setattr(transformers.GenerationMixin, "generate", record)
    monkeypatch.setattr(type(ours.whisper_options({})), "request", remember)
    for threshold in (-100.0, -1e-6):
        for kept in tried.values():
            kept.clear()
        options = {
            "temperature": (0.0, 0.4, 0.8), "logprob_threshold": threshold, "return_timestamps": True,
            "language": "en",
        }  # fmt: skip
        generated(whispers, features(300, 3), **options)
        wanted = [0.0, 0.4, 0.8] if threshold == -1e-6 else [0.0]
        for kept in tried.values():
            assert len(kept) >= 4
            windows = [kept[start : start + len(wanted)] for start in range(0, len(kept), len(wanted))]
            assert all(window == wanted for window in windows)


def test_a_row_is_what_it_is_alone_among_others(whispers: tuple[Any, Any]) -> None:
    ours = whispers[1]
    lengths = [640, 90, 300, 211]
    rows = [features(frames, frames)[0] for frames in lengths]
    batch = torch.zeros(len(rows), MELS, max(lengths))
    mask = torch.zeros(len(rows), max(lengths), dtype=torch.int64)
    for index, row in enumerate(rows):
        batch[index, :, : row.shape[1]] = row
        mask[index, : row.shape[1]] = 1
    options: dict[str, Any] = {
        "return_segments": True, "return_timestamps": True, "temperature": (0.0, 0.9), "seed": 5,
        "logprob_threshold": -0.5,
    }  # fmt: skip
    together = ours.generate(batch, attention_mask=mask, **options)
    for index, row in enumerate(rows):
        alone = ours.generate(row[None], **options) if row.shape[1] > FRAMES else None
        assert alone is not None
        found, wanted = together["segments"][index], alone["segments"][0]
        assert [segment["tokens"].tolist() for segment in found] == [
            segment["tokens"].tolist() for segment in wanted
        ]
        assert [segment["start"] for segment in found] == [segment["start"] for segment in wanted]


def test_languages_of_rows_may_differ(whispers: tuple[Any, Any]) -> None:
    ours = whispers[1]
    inputs = torch.cat([features(FRAMES, seed) for seed in (4, 5)])
    mixed = ours.generate(inputs, language=["en", "fr"])
    for row, language in enumerate(("en", "fr")):
        alone = ours.generate(inputs[row : row + 1], language=language)
        assert torch.equal(mixed[row, : alone.shape[1]], alone[0])


def test_a_pair_of_times_at_zero_ends_its_window() -> None:
    """transformers would decode the same window for ever."""
    options = WindowOptions((START,), FIRST_TIME, END, PREVIOUS, window_frames=FRAMES)
    windows = sequential_windows(100, options, lambda tokens: 1.0)
    decoded = Decoded((5, FIRST_TIME, FIRST_TIME + 3, 7), -1.0)
    assert next(windows).start == 0
    assert windows.send(decoded).start == FRAMES
    with pytest.raises(StopIteration):
        windows.send(decoded)


def test_hotwords_go_before_the_context_of_every_window() -> None:
    """As `WhisperModel.get_prompt` of faster-whisper 1.2.1 has them, within the room for context."""
    options = WindowOptions((START, 7), FIRST_TIME, END, PREVIOUS, hotwords=(20, 21), max_previous_tokens=4)
    assert window_prompt((), options, conditioned=False) == (PREVIOUS, 20, 21, START, 7)
    told = replace(options, prompt_ids=(PREVIOUS, 5, 6, 8))
    assert window_prompt((), told, conditioned=False) == (PREVIOUS, 20, 21, 5, 6, 8, START, 7)
    assert window_prompt((), told, conditioned=True) == (PREVIOUS, 20, 21, 6, 8, START, 7)
    assert window_prompt((), replace(told, hotwords=tuple(range(9))), conditioned=True)[1:5] == (0, 1, 2, 3)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown option": ({"langauge": "en"}, "unknown generation option 'langauge'"),
    "an unknown language": (
        {"language": "xx"},
        r"language 'xx' is not one of this checkpoint's \(de, en, fr\)",
    ),
    "an unknown task": ({"task": "sing"}, "task is 'sing'; it must be 'transcribe', 'translate'"),
    "a temperature below 0": ({"temperature": -1.0}, "temperature is -1.0"),
    "no temperatures": ({"temperature": ()}, "temperature is"),
    "too many new tokens": ({"max_new_tokens": 60}, "max_new_tokens 60 and a prompt of 3"),
    "a prompt everywhere without conditions": (
        {"prompt_condition_type": "all-segments", "prompt_ids": [PREVIOUS, 3]},
        "needs condition_on_prev_tokens",
    ),
    "a number of languages": ({"language": ["en", "de"]}, "language has 2 entries, and there are 1"),
    "a threshold in words": ({"logprob_threshold": "low"}, "logprob_threshold must be a number"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_option_is_refused_by_name(whispers: tuple[Any, Any], name: str) -> None:
    options, message = BAD[name]
    with pytest.raises(ValueError, match=message):
        whispers[1].generate(features(FRAMES), **options)


def test_long_recordings_need_times_and_masks(whispers: tuple[Any, Any]) -> None:
    ours = whispers[1]
    with pytest.raises(ValueError, match="return_timestamps is False"):
        ours.generate(features(300), return_timestamps=False)
    with pytest.raises(ValueError, match="attention_mask is needed"):
        ours.generate(features(300).repeat(2, 1, 1))
    with pytest.raises(ValueError, match=r"\[batch, 8, frames\]"):
        ours.generate(torch.zeros(1, 9, FRAMES))


def test_options_survive_saving(whispers: tuple[Any, Any], tmp_path: Path) -> None:
    whispers[1].save_pretrained(tmp_path)
    written = json.loads((tmp_path / "generation_config.json").read_text())
    assert {name: written[name] for name in GENERATION} == GENERATION
    assert transformers.GenerationConfig.from_pretrained(tmp_path).lang_to_id == LANGUAGES
