"""The FastAPI service of the examples, as a process that real clients use and leave."""

import asyncio
import json
import time

import httpx
import pytest
from services import EXAMPLES, SIX, SOON, TEXT, digits, free_port, read_events, running

# The example with room for few requests, and with the engine's counters for the tests.
SMALL = """
import fastapi_service as service
from tritone import EngineConfig
service.EngineConfig = lambda max_waiting: EngineConfig(max_waiting=1, num_rows=1)
app = service.app
app.get("/stats")(lambda: app.state.engine.stats())
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    (folder / "small_service.py").write_text(f"import sys\nsys.path.append({str(EXAMPLES)!r})\n{SMALL}")
    port = free_port()
    with running(
        folder / "log", port, "uvicorn", "--app-dir", folder, "--port", port, "small_service:app"
    ) as service:
        yield service


def upload(service, content: bytes) -> httpx.Response:
    return httpx.post(f"{service.url}/transcribe", files={"file": ("talk", content)}, timeout=SOON)


def wait_for(service, condition) -> dict:
    """Statistics of the service's engine, once a condition of them holds."""
    until = time.monotonic() + SOON
    while not condition(stats := httpx.get(f"{service.url}/stats").json()):
        assert time.monotonic() < until, stats
        time.sleep(0.02)
    return stats


def test_the_service_has_at_most_forty_lines():
    assert len((EXAMPLES / "fastapi_service.py").read_text().splitlines()) <= 40


def test_an_upload_comes_back_as_pieces_that_join_to_its_text(service):
    response = upload(service, SIX.read_bytes())
    assert response.headers["content-type"].startswith("text/event-stream")
    *pieces, (name, result) = read_events(response)
    assert "".join(piece for _, piece in pieces) == TEXT
    assert {name for name, _ in pieces} == {"message"}
    assert len(pieces) > 1
    assert (name, json.loads(result)["text"]) == ("done", TEXT)


def test_an_upload_without_audio_gets_the_reason(service):
    [(name, reason)] = read_events(upload(service, b"no audio"))
    assert name == "error"
    assert "not audio" in reason


def test_an_upload_beyond_the_limit_is_refused(service):
    assert upload(service, bytes((50 << 20) + 1)).status_code == 413


def test_a_client_that_leaves_cancels_its_request(service):
    before = wait_for(service, lambda stats: not stats["running"])["cancelled"]
    with httpx.stream(
        "POST", f"{service.url}/transcribe", files={"file": ("talk", digits(20))}, timeout=SOON
    ) as response:
        assert next(response.iter_lines()).startswith("data: ")
    stats = wait_for(service, lambda stats: stats["cancelled"] > before and not stats["running"])
    assert stats["cancelled"] == before + 1


def test_clients_beyond_the_queue_are_told_when_to_return(service):
    async def flood() -> list[httpx.Response]:
        files = [{"file": ("talk", content)} for content in [digits(4)] * 12]
        async with httpx.AsyncClient(timeout=SOON) as client:
            return await asyncio.gather(
                *(client.post(f"{service.url}/transcribe", files=one) for one in files)
            )

    responses = asyncio.run(flood())
    full = [one for one in responses if one.status_code == 429]
    assert full
    assert all(int(one.headers["retry-after"]) >= 1 and "max_waiting is 1" in one.text for one in full)
    served = [read_events(one)[-1] for one in responses if one.status_code == 200]
    assert len(served) + len(full) == 12
    assert len(set(served)) == 1
    assert served[0][0] == "done"


def test_health_is_that_of_the_engine(service):
    response = httpx.get(f"{service.url}/health")
    assert (response.status_code, response.json()) == (200, {"status": "ok", "reason": None})
