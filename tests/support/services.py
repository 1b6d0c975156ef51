"""Services of the examples in tests: real processes on loopback, and what they print."""

import io
import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SIX = ROOT / "samples/digits/six_digits_16k.flac"  # 3 s
TEXT = json.loads((ROOT / "samples/digits/transcripts.json").read_text())[SIX.name]
SOON = 120  # seconds; a start alone takes many on a loaded machine


@dataclass
class Service:
    """Service that runs.

    Args:
        port: its port on loopback.
        process: its process, of which others may be children.
        log: file with its standard output and error.
    """

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def digits(times: int) -> bytes:
    """WAV file with the six digits so many times: 3 s for each."""
    waveform, rate = soundfile.read(SIX, dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, np.tile(waveform, times), rate, format="WAV")
    return file.getvalue()


def free_port() -> int:
    """Port of loopback that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running(log: Path, port: int, *arguments: object) -> Iterator[Service]:
    """Service that `python -m` with these arguments starts, as soon as something listens on its port."""
    with log.open("wb") as output:
        command = [sys.executable, "-m", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=ROOT)
    try:
        until = time.monotonic() + SOON
        while not _listens(port):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield Service(port, process, log)
    finally:
        process.terminate()
        try:
            process.wait(SOON)
        finally:
            process.kill()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def read_events(response: httpx.Response) -> list[tuple[str, str]]:
    """Names ("message" by default) and data of a response's server-sent events."""
    events = []
    for block in response.text.replace("\r\n", "\n").split("\n\n"):
        fields = [line.partition(":")[::2] for line in block.splitlines()]
        data = [value.removeprefix(" ") for name, value in fields if name == "data"]
        if data:
            names = [value.strip() for name, value in fields if name == "event"]
            events.append((names[0] if names else "message", "\n".join(data)))
    return events
