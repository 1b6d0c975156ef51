"""Engines in the worker processes of gunicorn and uvicorn: made in each worker, never before a fork."""

import time

import httpx
import pytest
from services import EXAMPLES, SIX, SOON, TEXT, digits, free_port, read_events, running

from tritone.engine.handle import FORKED

BEFORE_THE_FORK = """
import tritone
from fastapi import FastAPI, HTTPException, Response, UploadFile

engine = tritone.AsyncEngine("digits")
app = FastAPI()

@app.post("/transcribe")
async def transcribe(file: UploadFile) -> str:
    try:
        return (await engine.transcribe(await file.read())).text
    except RuntimeError as error:
        raise HTTPException(503, str(error)) from error

@app.get("/health")
async def health(response: Response) -> tritone.EngineHealth:
    response.status_code = 503 if engine.health().status == "failed" else 200
    return engine.health()
"""

# The example, with the process that has answered, and the number of requests that were cancelled in it.
IN_EACH_WORKER = f"""
import os, sys
sys.path.append({str(EXAMPLES)!r})
from fastapi_service import create_app
app = create_app()
app.get("/process")(lambda: (os.getpid(), app.state.engine.stats().cancelled))
"""


@pytest.fixture
def files():
    return {"file": ("talk", SIX.read_bytes())}


def test_an_engine_made_before_gunicorn_forks_is_refused_with_the_reason(tmp_path, files):
    (tmp_path / "app.py").write_text(BEFORE_THE_FORK)
    port = free_port()
    arguments = ["--preload", "-k", "asgi", "-b", f"127.0.0.1:{port}", "--chdir", tmp_path, "app:app"]
    with running(tmp_path / "log", port, "gunicorn", *arguments) as service:
        health = httpx.get(f"{service.url}/health", timeout=SOON)
        assert (health.status_code, health.json()) == (503, {"status": "failed", "reason": FORKED})
        start = time.monotonic()
        reply = httpx.post(f"{service.url}/transcribe", files=files, timeout=SOON)
        assert (reply.status_code, reply.json()) == (503, {"detail": FORKED})
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("server", ["gunicorn --preload --asgi-disconnect-grace-period 0", "uvicorn"])
def test_each_worker_makes_its_engine_and_serves_clients_that_stay_or_leave(tmp_path, files, server):
    (tmp_path / "app.py").write_text(IN_EACH_WORKER)
    port = free_port()
    module, *arguments = server.split()
    if module == "gunicorn":
        arguments += ["-k", "asgi", "-w", "2", "-b", f"127.0.0.1:{port}", "--chdir", str(tmp_path), "app:app"]
    else:
        arguments += ["--workers", "2", "--port", str(port), "--app-dir", str(tmp_path), "app:app"]
    with running(tmp_path / "log", port, module, *arguments) as service:
        cancelled = {}

        def wait_for(condition) -> None:
            until = time.monotonic() + SOON
            while not condition():
                assert time.monotonic() < until, service.log.read_text()
                process, count = httpx.get(f"{service.url}/process", timeout=SOON).json()
                cancelled[process] = count
                time.sleep(0.01)

        wait_for(lambda: len(cancelled) == 2)
        for _ in range(4):
            reply = httpx.post(f"{service.url}/transcribe", files=files, timeout=SOON)
            assert "".join(data for name, data in read_events(reply) if name == "message") == TEXT
        long = {"file": ("talk", digits(200))}
        with httpx.stream("POST", f"{service.url}/transcribe", files=long, timeout=SOON) as reply:
            assert next(reply.iter_lines())
        wait_for(lambda: sum(cancelled.values()) == 1)
