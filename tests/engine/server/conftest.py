"""One server with a model of each kind, and clients of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from factories import write_ctc_checkpoint, write_text_classifier
from live_server import serving
from whisper_checkpoints import write_whisper_checkpoint

from tritone.engine.async_engine import AsyncEngine
from tritone.engine.server.models import ServedModels

ROOT = Path(__file__).parents[3]
BAKERY = ROOT / "samples/english/bakery_16k.wav"
DIGITS = ROOT / "samples/digits/two_digits_16k.wav"


@dataclass
class LiveServer:
    """Server under test.

    Attributes:
        url: its address.
        engines: its engines by the names of their models.
    """

    url: str
    engines: dict[str, AsyncEngine]

    def post(
        self, path: str, file: bytes | Path | None = DIGITS, /, **fields: str | list[str]
    ) -> httpx.Response:
        """Answer to a form, whose values may be lists."""
        parts: list[Any] = [
            (name, (None, value))
            for name, given in fields.items()
            for value in ([given] if isinstance(given, str) else given)
        ]
        if file is not None:
            parts.append(("file", ("a.wav", file.read_bytes() if isinstance(file, Path) else file)))
        return httpx.post(f"{self.url}{path}", files=parts, timeout=60)

    def transcribe(self, file: bytes | Path | None = DIGITS, /, **fields: str | list[str]) -> httpx.Response:
        """Answer of the endpoint of transcriptions."""
        return self.post("/v1/audio/transcriptions", file, **fields)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Server with digits, english, and small models of every other kind."""

    def folder(name: str) -> Path:
        return tmp_path_factory.mktemp(name)

    engines = {
        "digits": AsyncEngine("digits", device="cpu"),
        "english": AsyncEngine("english", device="cpu"),
        "ctc": AsyncEngine(write_ctc_checkpoint(folder("ctc")), device="cpu"),
        "many-languages": AsyncEngine(
            write_whisper_checkpoint(folder("whisper"), alignment_heads=[[1, 0], [0, 1]]), device="cpu"
        ),
        "digit-classifier": AsyncEngine(ROOT / "models/digit_classifier", device="cpu"),
        "text-classifier": AsyncEngine(write_text_classifier(folder("texts")), device="cpu"),
    }
    with serving(ServedModels(engines, {"whisper-1": "english"})) as url:
        yield LiveServer(url, engines)


@pytest.fixture(scope="session")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    """OpenAI's client of the server."""
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
        yield client
