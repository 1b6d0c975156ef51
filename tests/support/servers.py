"""Real `tritone serve` processes, and clients that keep to no rules."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import BadStatusLine, HTTPConnection, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import Any

SOON = 60  # seconds; a start alone takes some on a loaded machine
DIGITS = Path(__file__).parents[2] / "samples" / "digits" / "six_digits_16k.flac"
TRANSCRIPTIONS = "/v1/audio/transcriptions"


@dataclass
class Answer:
    """Answer of a server."""

    status: int
    headers: HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        """Body as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """Error in OpenAI's form, which has these fields and no others."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        return error


@dataclass
class ServerProcess:
    """Process of a server.

    Args:
        process: the process.
        address: first line that it printed.
        log: lines of its standard error so far.
    """

    process: subprocess.Popen[str]
    address: str = ""
    log: list[str] = field(default_factory=list)

    @property
    def port(self) -> int:
        """Port that it listens on."""
        return int(self.address.rpartition(":")[2])

    def connect(self, timeout: float = SOON) -> socket.socket:
        """Connection of a client of its own kind."""
        if self.address.startswith("unix:"):
            one = socket.socket(socket.AF_UNIX)
            one.settimeout(timeout)
            one.connect(self.address.removeprefix("unix:"))
            return one
        return socket.create_connection(("127.0.0.1", self.port), timeout)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request by a client that keeps to the rules."""
        client = HTTPConnection("localhost")
        client.sock = self.connect()
        try:
            client.request(method, path, body, headers or {}, encode_chunked=is_chunked(headers))
            found = client.getresponse()
            return Answer(found.status, found.headers, found.read())
        finally:
            client.close()

    def transcribe(self, content: bytes, name: str = "a.flac", **fields: str) -> Answer:
        """Transcribe a recording."""
        body, headers = form(content, name, **fields)
        return self.ask("POST", TRANSCRIPTIONS, body, headers)

    def memory(self) -> int:
        """Bytes of memory that the process holds, and does not share."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon"))

    def files(self) -> list[str]:
        """Paths of the files that the process has open."""
        found: list[str] = []
        for path in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed by now
                found.append(os.readlink(path))
        return found

    def stop(self) -> int:
        """Tell the process to end, and return its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Exit code of the process, once its log is read."""
        code = self.process.wait(SOON)
        self._reader.join(SOON)
        return code

    def read_log(self) -> None:
        """Collect the log in a thread."""
        assert self.process.stderr is not None
        lines = self.process.stderr
        self._reader = threading.Thread(
            target=lambda: self.log.extend(line.rstrip("\n") for line in lines), daemon=True
        )
        self._reader.start()


@contextmanager
def server(
    *options: object, before: str = "", environment: dict[str, str] | None = None, **settings: Any
) -> Iterator[ServerProcess]:
    """Start a server on a free port with the model `digits`, and kill it at the end.

    Args:
        *options: further options of the command.
        before: Python that the process runs first.
        environment: variables of its environment.
        **settings: as of Popen.
    """
    program = f"{before}\nfrom tritone.__main__ import main\nmain()"
    listen = [] if "--uds" in options else ["--port", "0"]
    started = subprocess.Popen(
        [sys.executable, "-c", program, "serve", "--model", "digits", *listen, *map(str, options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **(environment or {})},
        **settings,
    )
    one = ServerProcess(started)
    one.read_log()
    assert started.stdout is not None
    try:
        if select.select([started.stdout], [], [], SOON)[0]:
            one.address = started.stdout.readline().strip()
        assert one.address, f"no address: {one.log}"
        yield one
    finally:
        started.kill()
        started.wait()
        started.stdout.close()


def is_chunked(headers: dict[str, str] | None) -> bool:
    """Check whether a body is sent in chunks."""
    return (headers or {}).get("Transfer-Encoding") == "chunked"


def form(content: bytes, name: str = "a.flac", **fields: str) -> tuple[bytes, dict[str, str]]:
    """Body and headers of a form with a recording."""
    parts = [
        f'--limit\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    ]
    head = f'--limit\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'.encode()
    body = b"".join([*parts, head, content, b"\r\n--limit--\r\n"])
    return body, {"Content-Type": "multipart/form-data; boundary=limit", "Content-Length": str(len(body))}


def head(length: int | None = None, extra: str = "") -> bytes:
    """Head of a request with a form of so many bytes, or in chunks."""
    size = "Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}"
    return (
        f"POST {TRANSCRIPTIONS} HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: multipart/form-data; boundary=limit\r\n{size}\r\n{extra}\r\n"
    ).encode()


def read_answer(client: socket.socket) -> Answer | None:
    """Next answer on a connection; None where it is closed without one."""
    response = HTTPResponse(client)
    response.fp = client.makefile("rb", buffering=0)  # that of another answer stays on the connection
    try:
        response.begin()
        return Answer(response.status, response.headers, response.read())
    except (BadStatusLine, ConnectionError):
        return None


def send_slowly(client: socket.socket, content: Iterable[int], pause: float) -> Answer | None:
    """Send bytes one by one until there is an answer, and return it."""
    for byte in content:
        try:
            client.sendall(bytes([byte]))
        except OSError:
            break
        if select.select([client], [], [], pause)[0]:
            break
    return read_answer(client)


def wait_until(condition: Any, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition does not hold"
        time.sleep(0.02)
