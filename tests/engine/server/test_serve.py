"""The command `tritone serve`: its address, errors, log, access, and how it ends."""

import json
import os
import re
import signal
import socket
import stat
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import tritone_invoke
from servers import DIGITS, Answer, form, head, read_answer, server, wait_until

pytest.importorskip("fastapi")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs signals")

TEXT = "zero zero seven five five nine"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model", "/no/such/model"], "no checkpoint folder '/no/such/model'"),
        (["--model", "a=digits", "--model", "a=digits"], "a is there already"),
        (["--model", "=digits"], "give MODEL, or NAME=MODEL"),
        (["--model", "digits", "--alias", "whisper-1=english"], "with a model of this server: digits"),
        (["--model", "digits", "--alias", "digits=digits"], "digits is there already"),
        (["--model", "digits", "--api-key-file", "/no/such/file"], "/no/such/file: No such file"),
        (["--model", "digits", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["--model", "digits", "--uds", "/dev/null"], "cannot listen on /dev/null"),
        (["--model", "digits", "--uds", "/no/such/folder/socket"], "No such file or directory"),
        (["--model", "digits", "--device", "abacus"], "abacus"),
        (["--workers", "4"], "leave it out: one process serves"),
        (["--max-upload", "0"], "0"),
    ],
)  # fmt: skip
def test_what_cannot_be_served_is_named_and_ends_with_2(options, message):
    port = ["--port", "0"] if "--host" not in options else []
    run = tritone_invoke("serve", *options, *port)
    assert run.exit_code == 2
    assert message in " ".join(run.stderr.replace("│", " ").split())
    assert run.stdout == ""


def test_a_port_in_use_is_named_before_a_model_is_loaded():
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        run = tritone_invoke("serve", "--model", "/no/such/model", "--port", port)
    assert run.exit_code == 2
    assert run.stderr.strip().endswith(f"cannot listen on 127.0.0.1:{port}: Address already in use")


def test_a_missing_extra_is_named(monkeypatch):
    from tritone.engine.cli import serve

    monkeypatch.setattr(serve, "_PACKAGES", ("no_such_package",))
    run = tritone_invoke("serve", "--model", "digits", "--port", "0")
    assert run.exit_code == 2
    assert run.stderr == (
        "tritone: error: serve needs no_such_package, of the extra server; install it: "
        "pip install 'tritone[server]'\n"
    )


def test_a_key_is_needed_and_the_log_has_neither_keys_nor_texts(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("# ours\nfirst-secret\nsecond-secret  # theirs\n")
    keys.chmod(0o644)
    options = ["--api-key-file", keys, "--cors-origin", "https://a.example", "--verbose"]
    with server(*options, environment={"TRITONE_API_KEY": "third-secret"}) as one:
        body, headers = form(DIGITS.read_bytes())
        for key in ("first-secret", "second-secret", "third-secret"):
            answer = one.ask(
                "POST",
                "/v1/audio/transcriptions?api_key=fourth-secret",
                body,
                headers | {"Authorization": f"Bearer {key}", "X-Request-ID": "of-the-client"},
            )
            assert answer.json["text"] == TEXT
            assert answer.headers["x-request-id"] == "of-the-client"
        refused = one.ask(
            "POST", "/v1/audio/transcriptions", body, headers | {"Authorization": "Bearer first"}
        )
        assert refused.status == 401
        assert refused.error["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"].startswith("Bearer")
        for path in ("/health", "/ready", "/metrics"):
            assert one.ask("GET", path).status == 200
        asked = {"Origin": "https://a.example", "Access-Control-Request-Method": "POST"}
        allowed = one.ask("OPTIONS", "/v1/audio/transcriptions", headers=asked)
        assert (allowed.status, allowed.headers["access-control-allow-origin"]) == (200, "https://a.example")
        assert one.stop() == 0
    log = "\n".join(one.log)
    line = r"POST /v1/audio/transcriptions 200 in \d\.\d{3} s, 3\.00 s of audio for digits \(of-the-client\)"
    assert len(re.findall(line, log)) == 3
    assert re.search(r"POST /v1/audio/transcriptions 401 in \d\.\d{3} s \([0-9a-f]{32}\)", log)
    assert f"{keys}: others than its owner may read it; chmod 600 {keys}" in log
    for secret in ("first-secret", "second-secret", "third-secret", "fourth-secret", TEXT):
        assert secret not in log


def test_a_signal_under_load_drains_every_request_that_was_taken(tmp_path):
    """Sixteen clients ask without a pause, half of them for streams; one is in the midst of its upload."""
    body, headers = form(DIGITS.read_bytes())
    streamed, headers_of_streamed = form(DIGITS.read_bytes(), stream="true")
    answers: list[tuple[int, str]] = []
    over = threading.Event()

    def ask_again(stream: bool) -> None:
        asked = (streamed, headers_of_streamed) if stream else (body, headers)
        while not over.is_set():
            try:
                answer = one.ask("POST", "/v1/audio/transcriptions", *asked)
            except OSError:  # the connection was not taken
                return
            answers.append((answer.status, text_of(answer) if stream else answer.json["text"]))

    path = tmp_path / "socket"
    with server("--uds", path, "--verbose") as one:
        assert one.address == f"unix:{path}"
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with ThreadPoolExecutor(16) as pool, one.connect() as slow:
            asked = [pool.submit(ask_again, bool(number % 2)) for number in range(16)]
            wait_until(lambda: len(answers) > 40)
            slow.sendall(head(len(body)) + body[:1000])
            time.sleep(0.1)
            one.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not path.exists() or any("stopping" in line for line in one.log))
            assert one.process.poll() is None
            slow.sendall(body[1000:])
            assert read_answer(slow).json["text"] == TEXT
            assert one.wait() == 0
            over.set()
            for each in asked:
                each.result()
    assert not path.exists()
    assert len(answers) > 40
    assert set(answers) == {(200, TEXT)}
    taken = [line for line in one.log if "POST /v1/audio/transcriptions" in line]
    assert len(taken) == len(answers) + 1  # that of the slow client
    assert all(" 200 in " in line for line in taken)


def test_a_request_that_does_not_end_in_time_is_cancelled_with_503(tmp_path):
    body, _ = form(DIGITS.read_bytes())
    with server("--drain-timeout", "0.3", "--verbose") as one, one.connect() as slow:
        slow.sendall(head(len(body)) + body[:1000])
        wait_until(lambda: one.ask("GET", "/ready").status == 200)
        time.sleep(0.1)
        one.process.send_signal(signal.SIGTERM)
        answer = read_answer(slow)
        assert answer.status == 503
        assert answer.error["code"] == "unavailable"
        assert one.wait() == 0
    assert any("1 requests have not ended in time" in line for line in one.log)


def test_a_second_signal_kills_the_server_and_its_socket_is_replaced(tmp_path):
    path = tmp_path / "socket"
    with server("--uds", path) as one, one.connect() as slow:
        slow.sendall(head(1000) + b"--limit")
        time.sleep(0.1)
        one.process.send_signal(signal.SIGINT)
        wait_until(lambda: signal_is_default(one.process.pid, signal.SIGINT))
        one.process.send_signal(signal.SIGINT)
        assert one.wait() == -signal.SIGINT
        assert path.exists()
    run = tritone_invoke("serve", "--model", "/no/such/model", "--uds", path)
    assert "/no/such/model" in run.stderr  # and not the socket
    assert not path.exists()


def test_a_socket_in_use_is_refused_and_left(tmp_path):
    path = tmp_path / "socket"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(os.fspath(path))
        other.listen()
        run = tritone_invoke("serve", "--model", "digits", "--uds", path)
    assert run.exit_code == 2
    assert "Address already in use" in run.stderr
    assert path.exists()


def text_of(answer: Answer) -> str:
    """Text of a stream's events, the last of which has it whole."""
    events = [json.loads(line[6:]) for line in answer.body.decode().split("\n\n") if line]
    deltas, done = "".join(event["delta"] for event in events[:-1]), events[-1]
    assert (done["type"], done["text"]) == ("transcript.text.done", deltas)
    return deltas


def signal_is_default(process: int, number: int) -> bool:
    """Check whether a process neither catches nor ignores a signal, as /proc shows."""
    text = Path(f"/proc/{process}/status").read_text()
    masks = [int(line.split()[1], 16) for line in text.splitlines() if line.startswith(("SigCgt", "SigIgn"))]
    return not any(mask >> (number - 1) & 1 for mask in masks)
