"""Errors of the server in OpenAI's form: of routes, engines and what the framework raises."""

import asyncio
from pathlib import Path
from types import SimpleNamespace

import httpx
import openai
import pytest
from live_server import serving

from tritone.engine.async_engine import AsyncEngine
from tritone.engine.audio.errors import AudioError
from tritone.engine.bounds import DeadlineError, QueueFullError
from tritone.engine.server.errors import ApiError, engine_error
from tritone.engine.server.models import ServedModels
from tritone.engine.server.settings import ServerSettings

RECORDING = Path(__file__).parents[3] / "samples/english/three_minutes.m4a"


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/v1/nothing", 404, "unknown_url"),
        ("POST", "/v1/chat/completions", 404, "unknown_url"),
        ("GET", "/v1/audio/transcriptions", 405, "method_not_allowed"),
        ("DELETE", "/v1/models/digits", 405, "method_not_allowed"),
        ("POST", "/v1/audio/transcriptions", 415, "unsupported_content_type"),
        ("POST", "/v1/classify", 415, "unsupported_content_type"),
    ],
)
def test_a_request_that_no_route_takes_has_an_error_of_openais_form(server, method, path, status, code):
    answer = httpx.request(method, f"{server.url}{path}")
    error = answer.json()["error"]
    assert answer.status_code == status
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert answer.headers["x-request-id"]
    if status == 405:
        assert answer.headers["allow"] in error["message"]


@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (QueueFullError("all places are taken", 2.2), 429, None, "queue_full"),
        (DeadlineError("no result in 3 s"), 504, None, "deadline_exceeded"),
        (AudioError("a.wav: damaged"), 400, "file", "invalid_audio"),
        (ValueError("num_beams is 99; the cache has 4 rows"), 400, "num_beams", None),
        (ValueError("it cannot be"), 400, None, None),
        (ApiError(418, "tea"), 418, None, None),
        (OSError("disk of the server"), 500, None, "internal_error"),
        (RuntimeError("a step has failed"), 500, None, "internal_error"),
    ],
)
def test_an_error_of_the_engine_has_its_status(server, error, status, param, code):
    request = SimpleNamespace(state=SimpleNamespace(request_id="r-1"))
    found = engine_error(error, server.engines["digits"], request, ("seed", "num_beams"))
    assert (found.status, found.param, found.code) == (status, param, code)
    if status == 500:
        assert "r-1" in found.message
        assert str(error) not in found.message
    if status == 429:
        assert found.headers["retry-after"] == "3"
        assert found.body()["error"]["type"] == "rate_limit_error"


def test_the_client_raises_its_error_for_a_key_a_deadline_and_a_full_queue():
    engine = AsyncEngine("digits", device="cpu")
    settings = ServerSettings(api_keys=("right",), deadline=1e-6)
    with serving(ServedModels({"digits": engine}), settings) as url:

        def transcribe(key, **options):
            with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
                return client.audio.transcriptions.create(file=RECORDING, model="digits", **options)

        with pytest.raises(openai.AuthenticationError, match="API key"):
            transcribe("wrong")
        with pytest.raises(openai.InternalServerError) as caught:
            transcribe("right")
        assert (caught.value.status_code, caught.value.code) == (504, "deadline_exceeded")
        engine.submit = full
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as refused:
                transcribe("right", stream=stream)
            assert refused.value.response.headers["retry-after"] == "7"
        document = httpx.get(f"{url}/openapi.json", headers={"authorization": "Bearer right"}).json()
        assert document["security"] == [{"key": []}]


def full(*_, **__):
    raise QueueFullError("all places are taken", 7)


def test_a_closed_engine_is_unavailable_for_a_while():
    engine = AsyncEngine("digits", device="cpu")
    with serving(ServedModels({"digits": engine})) as url:
        asyncio.run(engine.close())
        answer = httpx.post(f"{url}/v1/audio/transcriptions", files={"file": b"RIFF"})
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json()["error"]["type"] == "server_error"


def test_a_bug_of_the_server_shows_no_traceback(server, monkeypatch, caplog):
    def broken(*_):
        raise KeyError("a bug")

    monkeypatch.setattr("tritone.engine.server.transcriptions.read_parameters", broken)
    answer = server.transcribe()
    assert answer.status_code == 500
    assert "a bug" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "a bug" in caplog.text
