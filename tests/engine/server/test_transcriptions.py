"""Transcriptions and translations by OpenAI's client: formats, times, options, and what is in them."""

import asyncio
import json
from pathlib import Path

import numpy as np
import openai
import pytest
from audio_files import encode
from whisper_checkpoints import recording

from tritone.engine.server.responses import UNKNOWN_LANGUAGE

ROOT = Path(__file__).parents[3]
BAKERY = ROOT / "samples/english/bakery_16k.wav"
DIGITS = ROOT / "samples/digits/two_digits_16k.wav"
TEXT = "The bakery on the corner opens at 6 every morning."
WHISPER = "many-languages"  # random weights, windows of a second


def wav(samples) -> bytes:
    return encode(samples, 16_000, "wav", "pcm_s16le")


SHORT, LONG = wav(recording(0.9)), wav(recording(4.3, seed=1))


def create(client, file=SHORT, model=WHISPER, **options):
    return client.audio.transcriptions.create(file=file, model=model, **options)


@pytest.fixture(scope="module")
def engine(server):
    """The engine of the small Whisper."""
    return server.engines[WHISPER].engine


def test_json_has_text_and_usage(client):
    answer = create(client, BAKERY, "english")
    assert isinstance(answer, openai.types.audio.Transcription)
    assert answer.text == TEXT
    assert (answer.usage.type, answer.usage.seconds) == ("duration", 3.475)
    assert answer.logprobs is None


@pytest.mark.parametrize(("model", "file"), [(WHISPER, LONG), (WHISPER, SHORT), ("digits", DIGITS)])
def test_log_probs_are_those_of_the_tokens_whose_bytes_join_to_the_text(client, server, model, file):
    engine = server.engines[model].engine
    result = engine.submit(file, token_log_probs=True).result()
    answer = create(client, file, model, include=["logprobs"])
    assert {one.logprob for one in answer.logprobs} <= set(result.token_log_probs)
    assert all(one.token == bytes(map(int, one.bytes)).decode(errors="replace") for one in answer.logprobs)
    joined = b"".join(bytes(map(int, one.bytes)) for one in answer.logprobs)
    assert joined.decode(errors="replace").strip() == answer.text.strip() == result.text.strip()
    *_, done = client.audio.transcriptions.create(file=file, model=model, include=["logprobs"], stream=True)
    assert [one.logprob for one in done.logprobs] == [one.logprob for one in answer.logprobs]


@pytest.mark.parametrize("response_format", ["text", "srt", "vtt"])
def test_texts_are_plain_text_and_vtt_has_its_own_type(client, engine, response_format):
    raw = client.audio.transcriptions.with_raw_response.create(
        file=LONG, model=WHISPER, response_format=response_format
    )
    result = engine.submit(LONG).result()
    expected = {"text": f"{result.text}\n", "srt": result.to_srt(), "vtt": result.to_vtt()}
    assert raw.parse() == expected[response_format]
    kind = "text/vtt" if response_format == "vtt" else "text/plain"
    assert raw.headers["content-type"] == f"{kind}; charset=utf-8"


def test_verbose_json_has_segments_by_default(client, engine):
    answer = create(client, response_format="verbose_json", language="en")
    result = engine.submit(SHORT, return_timestamps=True, language="en").result()
    assert isinstance(answer, openai.types.audio.TranscriptionVerbose)
    assert (answer.text, answer.language, answer.duration) == (result.text, "english", 0.9)
    assert (answer.task, answer.words, answer.usage.seconds) == ("transcribe", None, 0.9)
    (segment, *_), (expected, *_) = answer.segments, result.segments
    assert (segment.id, segment.seek, segment.start, segment.end) == (0, 0, expected.start, expected.end)
    assert (segment.text, segment.tokens) == (expected.text, list(expected.token_ids))
    assert (segment.avg_logprob, segment.temperature) == (expected.score, 0.0)
    assert segment.no_speech_prob == (expected.no_speech_probability or 0.0)
    assert segment.compression_ratio == expected.compression_ratio


@pytest.mark.parametrize("granularities", [["word"], ["segment"], ["word", "segment"]])
def test_granularities_are_those_that_were_asked_for(client, engine, granularities):
    answer = create(client, response_format="verbose_json", timestamp_granularities=granularities)
    assert (answer.words is not None, answer.segments is not None) == (
        "word" in granularities,
        "segment" in granularities,
    )
    if answer.words is not None:
        words = engine.submit(SHORT, return_timestamps=True, word_timestamps=True).result().words
        found = [(word.word, word.start, word.end) for word in answer.words]
        assert found == [(one.text, round(one.start, 3), round(one.end, 3)) for one in words]


def test_a_segment_of_a_long_recording_names_its_window(server):
    answer = server.transcribe(LONG, model=WHISPER, response_format="verbose_json").json()
    seeks = [segment["seek"] for segment in answer["segments"]]
    assert seeks == sorted(seeks)
    assert len(set(seeks)) > 1
    assert all(one["seek"] <= 100 * one["start"] + 1 for one in answer["segments"])
    assert answer["text"].strip() == "".join(one["text"] for one in answer["segments"]).strip()


def test_a_model_without_segments_has_one_for_the_whole(client):
    answer = create(client, DIGITS, "digits", response_format="verbose_json")
    (segment,) = answer.segments
    assert (segment.text, segment.start, segment.end) == (answer.text, 0.0, answer.duration)
    assert segment.avg_logprob < 0
    assert answer.language == UNKNOWN_LANGUAGE


def test_a_ctc_model_has_words_and_segments(client, server):
    answer = create(
        client, DIGITS, "ctc", response_format="verbose_json", timestamp_granularities=["word", "segment"]
    )
    words = server.engines["ctc"].engine.submit(DIGITS).result().words
    assert [word.word for word in answer.words] == [word.text for word in words]
    assert answer.segments[0].start == answer.words[0].start


def test_silence_has_no_segments(server):
    silence = encode(np.zeros(16_000), 16_000, "wav", "pcm_s16le")
    answer = server.transcribe(silence, model="digits", response_format="verbose_json", vad_filter="true")
    assert (answer.json()["text"], answer.json()["segments"]) == ("", [])
    assert (
        server.transcribe(silence, model="digits", response_format="vtt", vad_filter="1").text == "WEBVTT\n\n"
    )


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of OpenAI's models
def test_a_translation_is_whispers_task_and_its_language_is_english(client, engine):
    expected = engine.submit(DIGITS, task="translate", return_timestamps=True, language="de").result()
    raw = client.audio.translations.with_raw_response.create(
        file=DIGITS, model=WHISPER, response_format="verbose_json", extra_body={"language": "german"}
    )
    answer = json.loads(raw.text)
    assert (answer["task"], answer["language"]) == ("translate", "english")
    assert answer["text"] == expected.text
    plain = client.audio.translations.create(file=DIGITS, model=WHISPER)
    assert isinstance(plain, openai.types.audio.Translation)


def test_a_language_is_a_code_or_a_name(client, engine):
    expected = engine.submit(DIGITS, language="de").result().text
    for language in ("de", "German"):
        assert create(client, DIGITS, WHISPER, language=language).text == expected
    answer = create(client, DIGITS, WHISPER, language="de", response_format="verbose_json")
    assert answer.language == "german"


def test_a_temperature_draws_from_all_tokens_by_the_seed(client, server):
    engine = server.engines["digits"].engine
    options = {"do_sample": True, "temperature": 1.0, "top_k": 0}
    for seed in range(3):
        answer = create(client, BAKERY, "digits", temperature=1, extra_body={"seed": seed})
        assert answer.text == engine.submit(BAKERY, seed=seed, **options).result().text
    drawn = {create(client, BAKERY, "digits", temperature=1).text for _ in range(4)}
    assert len(drawn) > 1


def test_options_reach_the_engine(client, engine):
    expected = engine.submit(SHORT, prompt="the one", hotwords="two", num_beams=2).result().text
    answer = create(client, prompt="the one", extra_body={"hotwords": "two", "num_beams": 2})
    assert answer.text == expected != create(client).text


def test_a_long_prompt_counts_by_its_last_tokens(client, engine):
    prompt = "two three one " * 60
    first, *ids = engine.processor.tokenizer.get_prompt_ids(prompt, None)
    room = engine.model.max_length // 2 - 1
    assert len(ids) > 2 * room
    expected = engine.submit(SHORT, prompt_ids=[first, *ids[-room:]]).result().text
    assert create(client, prompt=prompt).text == expected
    *_, done = client.audio.transcriptions.create(file=SHORT, model=WHISPER, prompt=prompt, stream=True)
    assert done.usage.input_token_details.text_tokens == room + 1
    for hotwords in ("one two", "one two " * 60):
        assert create(client, prompt=prompt, extra_body={"hotwords": hotwords}).usage.seconds == 0.9


@pytest.mark.parametrize(
    "strategy", ["auto", {"type": "server_vad"}, {"type": "server_vad", "threshold": 0.5}]
)
def test_a_chunking_strategy_cuts_at_pauses(client, engine, strategy):
    options = {"windows": "pauses", "vad_filter": strategy != "auto"}
    expected = engine.submit(LONG, **options).result().text
    assert create(client, LONG, chunking_strategy=strategy).text == expected


def test_a_chunking_strategy_may_be_json(server):
    strategy = json.dumps({"type": "server_vad", "silence_duration_ms": 2000, "prefix_padding_ms": 400})
    assert server.transcribe(model="digits", chunking_strategy=strategy).json()["text"] == "four two"


def test_an_empty_field_counts_as_left_out(server):
    answer = server.transcribe(model="digits", prompt="", language="", temperature="", chunking_strategy="")
    assert answer.status_code == 200


def test_the_first_model_is_the_default_and_an_alias_is_a_model(server, client):
    assert server.transcribe().json()["text"] == "four two"
    assert client.models.retrieve("whisper-1").id == "whisper-1"
    assert create(client, BAKERY, "whisper-1").text == TEXT


CONTAINERS = [
    ("flac", "flac"),
    ("mp3", "libmp3lame"),
    ("mp4", "aac"),
    ("ipod", "aac"),
    ("ogg", "libopus"),
    ("wav", "pcm_s16le"),
    ("webm", "libopus"),
]


@pytest.mark.parametrize(("container", "codec"), CONTAINERS)
def test_a_recording_is_known_by_its_content(server, container, codec):
    samples = np.random.default_rng(0).standard_normal(16_000) / 10
    content = encode(samples, 48_000, container, codec)
    answer = server.transcribe(content, model="digits")  # its name says wav
    assert answer.status_code == 200, answer.text


def test_the_asynchronous_client_has_the_same_answers(server):
    async def both():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            one = client.audio.transcriptions.create(file=BAKERY, model="english")
            other = client.audio.transcriptions.create(file=DIGITS, model="digits", response_format="text")
            return await asyncio.gather(one, other)

    transcription, text = asyncio.run(both())
    assert (transcription.text, text) == (TEXT, "four two\n")


def test_models_are_listed_as_openai_lists_them(client):
    names = [model.id for model in client.models.list()]
    assert names[:2] == ["digits", "english"]
    assert "whisper-1" not in names
    found = client.models.retrieve("whisper-1")
    assert (found.id, found.object, found.owned_by) == ("whisper-1", "model", "tritone")
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        client.models.retrieve("openai/whisper-tiny")
