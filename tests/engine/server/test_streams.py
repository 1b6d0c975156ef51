"""Streams of transcripts: their events, their errors, and clients that leave."""

import asyncio
import json
import socket
import time
from pathlib import Path

import httpx
import openai
import pytest

from tritone.engine.server.events import TranscriptStream

ROOT = Path(__file__).parents[3]
BAKERY = ROOT / "samples/english/bakery_16k.wav"
DIGITS = ROOT / "samples/digits/two_digits_16k.wav"
LONG = ROOT / "samples/english/three_minutes.m4a"
TEXT = "The bakery on the corner opens at 6 every morning."


def test_deltas_join_to_the_text_and_one_event_ends_them(client):
    *deltas, done = client.audio.transcriptions.create(file=BAKERY, model="english", stream=True)
    assert {event.type for event in deltas} == {"transcript.text.delta"}
    assert len(deltas) > 5
    assert "".join(event.delta for event in deltas) == done.text == TEXT
    assert (done.type, done.usage.type) == ("transcript.text.done", "tokens")
    usage = done.usage
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert (usage.input_tokens, usage.input_token_details.audio_tokens) == (35, 35)


def test_the_asynchronous_client_streams(server):
    async def read():
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none") as client:
            events = await client.audio.transcriptions.create(file=DIGITS, model="digits", stream=True)
            return [event async for event in events]

    assert asyncio.run(read())[-1].text == "four two"


@pytest.mark.parametrize(
    ("model", "fields"),
    [("ctc", {}), ("digits", {"num_beams": "2"}), ("many-languages", {"response_format": "text"})],
)
def test_every_model_streams(server, model, fields):
    answer = server.transcribe(model=model, stream="true", **fields)
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    events = [json.loads(line[6:]) for line in answer.text.splitlines() if line]
    assert [event["type"] for event in events[-2:]] == ["transcript.text.delta", "transcript.text.done"]
    assert events[-1]["text"] == "".join(event["delta"] for event in events[:-1])
    assert "[DONE]" not in answer.text


def test_an_error_before_the_first_text_has_a_status(client):
    with pytest.raises(openai.BadRequestError, match="not audio"):
        client.audio.transcriptions.create(file=b"no recording", model="digits", stream=True)


def test_an_error_after_the_first_text_is_an_event_and_the_last(server, client, monkeypatch):
    async def texts(stream):
        yield "five"
        raise RuntimeError("a step has failed")

    monkeypatch.setattr(TranscriptStream, "_texts", texts)
    answer = server.transcribe(stream="true")
    first, last = answer.text.strip().split("\n\n")
    assert json.loads(first[6:])["delta"] == "five"
    name, data = last.split("\n")
    assert name == "event: error"
    error = json.loads(data[6:])["error"]
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "a step has failed" not in last
    assert answer.headers["x-request-id"] in error["message"]
    events = client.audio.transcriptions.create(file=DIGITS, model="digits", stream=True)
    assert next(events).delta == "five"
    with pytest.raises(openai.APIError, match="failed on this request"):
        next(events)


def cancelled(server) -> int:
    return server.engines["english"].stats().cancelled


def wait_until(condition, seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def test_leaving_a_stream_cancels_its_request(server):
    before = cancelled(server)
    fields = {"model": "english", "stream": "true"}
    url = f"{server.url}/v1/audio/transcriptions"
    with httpx.stream("POST", url, data=fields, files={"file": LONG.read_bytes()}, timeout=60) as answer:
        next(answer.iter_lines())
    assert wait_until(lambda: cancelled(server) == before + 1)


def test_leaving_before_an_answer_cancels_its_request(server):
    before = cancelled(server)
    request = httpx.Request(
        "POST",
        f"{server.url}/v1/audio/transcriptions",
        data={"model": "english"},
        files={"file": LONG.read_bytes()},
    )
    head = b"".join(b"%s: %s\r\n" % pair for pair in request.headers.raw)
    with socket.create_connection((request.url.host, request.url.port)) as connection:
        connection.sendall(b"POST /v1/audio/transcriptions HTTP/1.1\r\n" + head + b"\r\n" + request.read())
        assert wait_until(lambda: server.engines["english"].stats().running > 0)
    assert wait_until(lambda: cancelled(server) == before + 1)
    metrics = httpx.get(f"{server.url}/metrics").text
    assert 'tritone:requests_total{status="499"}' in metrics
