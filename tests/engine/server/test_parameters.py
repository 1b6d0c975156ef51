"""Fields that are refused: each by its name, with what is accepted and a remedy."""

import json

import openai
import pytest

VAD = "chunking_strategy"
# Fields, and of their error: the parameter, the code, and a part of the message.
REFUSED = [
    ({"response_format": "diarized_json"}, "response_format", "unsupported_value", "have no speakers"),
    ({"response_format": "xml"}, "response_format", "invalid_value", "json, text, srt, verbose_json, vtt"),
    ({"languages[]": ["de", "en"]}, "languages[]", "unsupported_parameter", "in the field 'language'"),
    ({"keywords[]": "Ada"}, "keywords[]", "unsupported_parameter", "'hotwords'"),
    ({"known_speaker_names[]": "Ada"}, "known_speaker_names[]", "unsupported_parameter", "leave it out"),
    ({"known_speaker_references[]": "data:"}, "known_speaker_references[]", "unsupported_parameter", "leave"),
    ({"beam_size": "5"}, "beam_size", "unknown_parameter", "num_beams"),
    ({"model[]": "digits"}, "model[]", "unknown_parameter", "model"),
    ({"temperature": ["0", "1"]}, "temperature", "repeated_parameter", "give it once"),
    ({"model": ["digits", "digits"]}, "model", "repeated_parameter", "give it once"),
    ({"temperature": "1.01"}, "temperature", "invalid_value", "from 0.0 to 1.0"),
    ({"temperature": "-1"}, "temperature", "invalid_value", "from 0.0 to 1.0"),
    ({"temperature": "nan"}, "temperature", "invalid_value", "from 0.0 to 1.0"),
    ({"temperature": "1e999"}, "temperature", "invalid_value", "from 0.0 to 1.0"),
    ({"temperature": "0.5", "model": "ctc"}, "temperature", "unsupported_value", "give 0"),
    ({"stream": "yes"}, "stream", "invalid_value", "true or false"),
    ({"stream": "true", "response_format": "srt"}, "stream", "unsupported_value", "response_format=json"),
    ({"timestamp_granularities[]": "word"}, "timestamp_granularities[]", "unsupported_value", "verbose_json"),
    (
        {"timestamp_granularities[]": "word", "response_format": "verbose_json"},
        "timestamp_granularities[]",
        "unsupported_value",
        "digits has no times of words",
    ),
    ({"timestamp_granularities[]": "line"}, "timestamp_granularities[]", "invalid_value", "word, segment"),
    ({"include[]": "usage"}, "include[]", "invalid_value", "logprobs"),
    ({"include[]": "logprobs", "response_format": "text"}, "include[]", "unsupported_value", "give json"),
    ({"include[]": "logprobs", "model": "ctc"}, "include[]", "unsupported_value", "leave it out"),
    ({"include[]": "logprobs", "num_beams": "2"}, "include[]", "unsupported_value", "num_beams is 2"),
    ({"language": "xx"}, "language", None, "leave it out"),
    (
        {"language": "klingon", "model": "many-languages"},
        "language",
        None,
        "not one of this checkpoint's (af,",
    ),
    ({"prompt": "digits"}, "prompt", "unsupported_value", "of Whisper"),
    ({"prompt": "<|en|>", "model": "many-languages"}, "prompt", "unsupported_value", "the special token"),
    ({"hotwords": "two"}, "hotwords", "unsupported_value", "of Whisper"),
    ({"seed": "-1"}, "seed", "invalid_value", "a whole number from 0"),
    ({"seed": "1", "model": "ctc"}, "seed", None, "best path"),
    ({"num_beams": "0"}, "num_beams", "invalid_value", "from 1 to 64"),
    ({"num_beams": "2", "model": "ctc"}, "num_beams", None, "best path"),
    ({VAD: "vad"}, VAD, "invalid_value", "auto, or an object"),
    ({VAD: "{"}, VAD, "invalid_value", "auto, or an object"),
    ({VAD: "[" * 10_000}, VAD, "invalid_value", "auto, or an object"),
    ({f"{VAD}[type]": "auto"}, VAD, "invalid_value", "auto, or an object"),
    ({f"{VAD}[type]": "server_vad", VAD: "auto"}, VAD, "repeated_parameter", "give it once"),
    (
        {f"{VAD}[type]": "server_vad", f"{VAD}[threshold]": "0.3"},
        f"{VAD}[threshold]",
        "unsupported_value",
        "has 0.5; give that",
    ),
    (
        {VAD: json.dumps({"type": "server_vad", "silence_duration_ms": 200})},
        f"{VAD}[silence_duration_ms]",
        "unsupported_value",
        "has 2000; give that",
    ),
    (
        {VAD: json.dumps({"type": "server_vad", "prefix_padding_ms": True})},
        f"{VAD}[prefix_padding_ms]",
        "unsupported_value",
        "has 400; give that",
    ),
    (
        {VAD: json.dumps({"type": "server_vad", "speech_pad_ms": 400})},
        f"{VAD}[speech_pad_ms]",
        "unknown_parameter",
        "prefix_padding_ms",
    ),
    ({"model": "digit-classifier"}, "model", "unsupported_value", "/v1/classify"),
]


@pytest.mark.parametrize(("fields", "param", "code", "message"), REFUSED)
def test_a_field_is_refused_by_its_name(server, fields, param, code, message):
    answer = server.transcribe(**fields)
    error = answer.json()["error"]
    assert answer.status_code == 400
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert message in error["message"]


@pytest.mark.parametrize("field", ["stream", "timestamp_granularities[]", "include[]", "chunking_strategy"])
def test_a_translation_has_no_fields_of_transcriptions(server, field):
    answer = server.post("/v1/audio/translations", model="many-languages", **{field: "true"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


@pytest.mark.parametrize("model", ["english", "digits", "ctc", "digit-classifier"])
def test_a_model_that_does_not_translate_is_refused(server, model):
    answer = server.post("/v1/audio/translations", model=model)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "model")


def test_a_form_without_a_recording_is_refused(server):
    answer = server.post("/v1/audio/transcriptions", None, model="digits")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")


def test_an_unknown_model_is_not_found(server, client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.audio.transcriptions.create(file=b"no matter", model="gpt-transcribe")
    assert (caught.value.param, caught.value.code) == ("model", "model_not_found")
    assert "digits, english" in caught.value.message


def test_no_path_or_address_of_a_client_is_opened(server, tmp_path):
    (tmp_path / "secret.wav").write_bytes(b"")
    for field in ("file", "url", "path"):
        answer = server.post("/v1/audio/transcriptions", None, **{field: str(tmp_path / "secret.wav")})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)
