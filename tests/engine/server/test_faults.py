"""Faults of clients, of the disk and of a thread, on a real server: the other requests go on."""

import io
import os
import resource
import select
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from servers import (
    DIGITS,
    ServerProcess,
    form,
    head,
    read_answer,
    send_slowly,
    server,
    wait_until,
)

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

TEXT = "zero zero seven five five nine"
CLIENT_TIMEOUT = 0.6  # seconds
MAX_CONNECTIONS = 100
MAX_DURATION = 600  # seconds
MAX_UPLOAD = 4  # MiB
DISK = 8 << 20  # bytes
# A panic of a library in a reading thread, for the recordings of that name alone.
PANIC = """
from tritone.engine.tasks import inputs
def load(source, *arguments, _call=inputs.load_audio, **options):
    if getattr(source, "name", "") == "panic.flac":
        raise SystemExit("injected")
    return _call(source, *arguments, **options)
inputs.load_audio = load
"""


@pytest.fixture(scope="module")
def uploads(tmp_path_factory) -> Iterator[Path]:
    """Folder of temporary files, on a disk of its own where this process may mount one."""
    folder = tmp_path_factory.mktemp("uploads")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
    is_mounted = os.geteuid() == 0 and subprocess.run(command, capture_output=True).returncode == 0
    yield folder
    if is_mounted:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def served(uploads) -> Iterator[ServerProcess]:
    """A server with low limits."""
    options = {
        "--max-upload": MAX_UPLOAD,
        "--max-duration": MAX_DURATION,
        "--max-connections": MAX_CONNECTIONS,
        "--client-timeout": CLIENT_TIMEOUT,
        "--upload-dir": uploads,
    }
    with server(*(part for option in options.items() for part in option), before=PANIC) as one:
        yield one
        assert one.process.poll() is None
        assert not [line for line in one.log if "Traceback" in line]


@pytest.fixture(autouse=True)
def works(served) -> Iterator[None]:
    """After each fault the server answers as before."""
    yield
    answer = served.transcribe(DIGITS.read_bytes())
    assert (answer.status, answer.json["text"]) == (200, TEXT)
    assert served.ask("GET", "/health").status == 200


def test_a_head_of_a_byte_a_second_is_given_up(served):
    with served.connect() as client:
        begin = time.monotonic()
        answer = send_slowly(client, head(100), pause=0.1)
        assert answer.status == 408
        assert answer.error["code"] == "request_timeout"
        assert answer.headers["x-request-id"]
        assert client.recv(1) == b""
        assert CLIENT_TIMEOUT <= time.monotonic() - begin < 10


def test_a_body_of_a_byte_a_second_is_given_up_and_holds_no_place(served):
    with served.connect() as client:
        client.sendall(head(100_000))
        begin = time.monotonic()
        answer = send_slowly(client, b"--limit\r\n" * 10, pause=0.1)
        assert answer.status == 408
        assert "bytes in" in answer.error["message"]
        assert client.recv(1) == b""
        assert CLIENT_TIMEOUT <= time.monotonic() - begin < 10


def test_a_body_shorter_than_it_says_is_refused(served):
    body, _ = form(DIGITS.read_bytes())
    with served.connect() as client:
        client.sendall(head(len(body) + 100) + body)
        client.shutdown(socket.SHUT_WR)
        answer = read_answer(client)
        assert answer.status == 400
        assert "shorter than its Content-Length" in answer.error["message"]
    with served.connect() as client:  # open, but silent
        client.sendall(head(len(body) + 100) + body)
        assert read_answer(client).status == 408


def test_a_body_longer_than_it_says_is_refused(served):
    body, _ = form(DIGITS.read_bytes())
    with served.connect() as client:
        client.sendall(head(len(body) - 50) + body)
        answer = read_answer(client)
        assert answer.status == 400
        assert "ends before its last boundary" in answer.error["message"]
    with served.connect() as client:
        client.sendall(head(len(body)) + body + b"and more\r\n\r\n")
        assert read_answer(client).json["text"] == TEXT
        answer = read_answer(client)
        assert answer.status == 400
        assert answer.error["message"].startswith("Invalid HTTP request")
        assert client.recv(1) == b""


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/x.y\r\n\r\n", b"\r\n" * 9000])
def test_what_is_no_http_is_refused(served, sent):
    with served.connect() as client:
        client.sendall(sent)
        answer = read_answer(client)
        assert answer is None or answer.error["type"] == "invalid_request_error"


def test_a_declared_upload_of_10_gb_is_refused_at_once(served):
    with served.connect() as client:
        begin = time.monotonic()
        client.sendall(head(10 << 30) + bytes(1000))
        answer = read_answer(client)
        assert answer.status == 413
        assert f"{MAX_UPLOAD} MiB" in answer.error["message"]
        assert time.monotonic() - begin < CLIENT_TIMEOUT


def test_an_upload_of_10_gb_in_chunks_is_cut_at_the_limit_in_flat_memory(served):
    start, _ = form(b"")
    before, sent = served.memory(), 0
    chunk = b"100000\r\n" + bytes(1 << 20) + b"\r\n"
    with served.connect() as client:
        begin = start[: start.index(b"\r\n\r\n") + 4]
        client.sendall(head() + b"%x\r\n%b\r\n" % (len(begin), begin))
        while sent < 10 << 30 and not select.select([client], [], [], 0)[0]:
            client.sendall(chunk)
            sent += 1 << 20
        assert read_answer(client).status == 413
    assert sent <= 32 << 20  # what the sockets hold among it
    assert served.memory() - before < 24 << 20


@pytest.fixture(params=["full", "limited"])
def no_room(request, served, uploads) -> Iterator[str]:
    """Message of a disk that is full, or of a limit on files; it is there while the test runs."""
    if request.param == "full":
        if not uploads.is_mount():
            pytest.skip("needs the right to mount a disk")
        filler = uploads / "filler"
        filler.write_bytes(bytes(DISK - (1 << 20)))
        yield "No space left on device"
        filler.unlink()
    else:
        process, name = served.process.pid, resource.RLIMIT_FSIZE
        before = resource.prlimit(process, name)
        resource.prlimit(process, name, (1 << 20, before[1]))
        yield "File too large"
        resource.prlimit(process, name, before)


def test_a_full_disk_fails_large_uploads_alone(served, uploads, no_room):
    answer = served.transcribe(bytes(2 << 20))
    assert answer.status == 507
    assert answer.error["code"] == "insufficient_storage"
    assert no_room in answer.error["message"]
    assert served.transcribe(DIGITS.read_bytes()).json["text"] == TEXT
    assert not [path for path in served.files() if str(uploads) in path]


def test_a_large_upload_is_transcribed_from_a_file_that_is_gone_then(served, uploads):
    samples, rate = soundfile.read(DIGITS, dtype="int16")
    path = uploads.parent / "long.wav"
    soundfile.write(path, np.tile(samples, 12), rate)
    content = path.read_bytes()
    assert len(content) > 1 << 20
    answer = served.transcribe(content, "long.wav")
    assert answer.status == 200
    assert answer.json["text"].startswith(TEXT)
    assert not [path for path in served.files() if str(uploads) in path]
    assert list(uploads.iterdir()) == []


def test_a_small_file_that_decodes_to_hours_is_refused_in_flat_memory(served, tmp_path):
    path = tmp_path / "hours.flac"
    with soundfile.SoundFile(path, "w", 8000, 1, format="FLAC") as file:
        for _ in range(3 * 60):
            file.write(np.zeros(60 * 8000, np.int16))
    content = path.read_bytes()
    assert len(content) < 1 << 20
    before = served.memory()
    answer = served.transcribe(content, "hours.flac")
    assert answer.status in (400, 413)
    assert f"longer than {MAX_DURATION}.0 s" in answer.error["message"]
    assert served.memory() - before < 24 << 20


def test_a_panic_in_a_reading_thread_is_an_error_of_that_request(served):
    answer = served.transcribe(DIGITS.read_bytes(), "panic.flac")
    assert answer.status == 500
    assert answer.error["type"] == "server_error"
    assert answer.headers["x-request-id"] in answer.error["message"]
    wait_until(lambda: any("injected" in line for line in served.log[-1:]))
    served.log.clear()


@pytest.fixture(scope="module")
def minutes() -> bytes:
    """A recording of six minutes, which takes seconds."""
    samples, rate = soundfile.read(DIGITS, dtype="int16")
    once = np.concatenate([samples, np.zeros(10 * rate, np.int16)])
    buffer = io.BytesIO()
    soundfile.write(buffer, np.tile(once, 30), rate, format="FLAC")
    return buffer.getvalue()


def metric(served: ServerProcess, name: str) -> float:
    """Value of a metric."""
    lines = served.ask("GET", "/metrics").body.decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(name))


@pytest.mark.parametrize("moment", ["sending", "waiting", "reading"])
def test_a_client_that_dies_is_counted_as_left_and_its_request_cancelled(served, minutes, moment):
    left, running = 'tritone:requests_failed_total{reason="client_left"}', "tritone:num_requests_running"
    before = metric(served, left)
    body, _ = form(minutes, "minutes.flac", stream="true" if moment == "reading" else "false")
    client = served.connect()
    client.sendall(head(len(body)) + (body[:-100] if moment == "sending" else body))
    if moment == "reading":
        assert client.recv(12) == b"HTTP/1.1 200"
    else:
        wait_until(lambda: moment == "sending" or metric(served, running) > 0)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset
    client.close()
    wait_until(lambda: metric(served, left) == before + 1)
    wait_until(lambda: metric(served, running) == 0, seconds=1)


def test_a_client_that_reads_nothing_is_cut(served):
    with served.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        # Answers of more bytes than the sockets' buffers hold, asked for in one go.
        request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"
        begin = time.monotonic()

        def ask_on() -> None:
            while time.monotonic() - begin < 20:
                client.sendall(request * 50)

        with pytest.raises(OSError):
            ask_on()
        assert time.monotonic() - begin < 15


def test_the_connection_idle_for_longest_makes_room_for_a_new_one(served):
    idle = [served.connect() for _ in range(MAX_CONNECTIONS)]
    try:
        for _ in range(3):
            assert served.ask("GET", "/health").status == 200
        assert idle[0].recv(1) == b""
        busy = idle[-20:]
        for client in busy:
            client.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert [read_answer(client).status for client in busy] == [200] * len(busy)
    finally:
        for client in idle:
            client.close()


def test_thousands_of_idle_connections_leave_the_server_at_work(served):
    idle: list[socket.socket] = []
    try:
        for _ in range(2000):
            idle.append(served.connect())
            if len(idle) > 400:
                idle.pop(0).close()
        assert served.transcribe(DIGITS.read_bytes()).json["text"] == TEXT
    finally:
        for client in idle:
            client.close()
    wait_until(lambda: sum("socket" in path for path in served.files()) < 20)
