"""Forms as they arrive: limits, broken ones, slow ones, and where a recording is kept."""

import asyncio
import errno
import hashlib
import json
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import form

pytest.importorskip("fastapi")
from fastapi import FastAPI, Request

from tritone.engine.server import uploads
from tritone.engine.server.errors import add_error_handlers
from tritone.engine.server.operation import add_operation
from tritone.engine.server.settings import ServerSettings
from tritone.engine.server.uploads import read_form

LIMITS = ServerSettings(
    max_upload_bytes=100_000,
    memory_upload_bytes=1000,
    memory_total_bytes=1500,
    max_fields=3,
    max_field_bytes=500,
    max_part_header_bytes=400,
    client_timeout=0.1,
    min_body_rate=50_000,
)
LEAVE, PAUSE = object(), object()


def application(settings: ServerSettings = LIMITS) -> FastAPI:
    """An application that answers with what it was sent."""
    app = FastAPI()
    add_error_handlers(app)
    add_operation(app, SimpleNamespace(engines={}), settings)

    @app.post("/v1/form")
    async def describe(request: Request) -> dict[str, object]:
        found = await read_form(request, settings)
        try:
            upload = found.file
            described: dict[str, object] = {"fields": found.fields}
            if upload is not None:
                content = upload.content
                described["in"] = "file" if isinstance(content, Path) else "memory"
                described["name"], described["size"] = upload.filename, upload.size
                whole = content.read_bytes() if isinstance(content, Path) else content
                described["sum"] = hashlib.sha256(whole).hexdigest()
                described["named"] = upload.named(f"{content}: broken") if described["in"] == "file" else ""
            return described
        finally:
            found.close()

    return app


async def ask(app: FastAPI, body: list, headers: dict[str, str]) -> tuple[int, dict]:
    """Send a request to the application, its body in these chunks."""
    left = list(body)
    answered: list[dict] = []

    async def receive() -> dict:
        chunk = left.pop(0) if left else None
        if chunk is PAUSE:
            await asyncio.sleep(10)
        if chunk is LEAVE:
            return {"type": "http.disconnect"}
        if chunk is None:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": chunk, "more_body": bool(left)}

    async def send(message: dict) -> None:
        answered.append(message)

    scope = {"type": "http", "method": "POST", "path": "/v1/form", "query_string": b"", "app": app}
    scope["headers"] = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await app(scope, receive, send)
    if not answered:
        return 0, {}
    return answered[0]["status"], json.loads(b"".join(one.get("body", b"") for one in answered))


def post(body: bytes | list, headers: dict[str, str], app: FastAPI | None = None) -> tuple[int, dict]:
    """Send a body, in one piece or these."""
    return asyncio.run(ask(app or application(), body if isinstance(body, list) else [body], headers))


def error(body: bytes | list, headers: dict[str, str], app: FastAPI | None = None) -> tuple[int, str]:
    """Status and message of the error that a body is answered with."""
    status, found = post(body, headers, app)
    assert set(found["error"]) == {"message", "type", "param", "code"}
    return status, found["error"]["message"]


@pytest.mark.parametrize("size", [1, 1000, 1001, 50_000])
@pytest.mark.parametrize("step", [1, 7, 65536])
def test_a_form_is_read_however_it_is_cut(size, step):
    if size > 1001 and step < 10:
        step = 977
    content = bytes(range(256)) * (size // 256 + 1)
    body, headers = form(content[:size], "Ä b.flac", model="digits", prompt="naïve")
    status, found = post([body[at : at + step] for at in range(0, len(body), step)], headers)
    assert status == 200
    assert found["fields"] == [["model", "digits"], ["prompt", "naïve"]]
    assert (found["name"], found["size"]) == ("Ä b.flac", size)
    assert found["sum"] == hashlib.sha256(content[:size]).hexdigest()
    assert found["in"] == ("memory" if size <= 1000 else "file")
    assert found["named"] == ("" if size <= 1000 else "Ä b.flac: broken")


def test_recordings_beyond_the_memory_of_all_go_to_files():
    app = application()
    app.state.server.upload_bytes = 1400
    assert post(*form(bytes(200)), app)[1]["in"] == "file"
    assert post(*form(bytes(100)), app)[1]["in"] == "memory"
    assert app.state.server.upload_bytes == 1400


def test_repeated_fields_stay_in_their_order_and_a_form_may_have_no_file():
    parts = b"".join(
        b'--limit\r\nContent-Disposition: form-data; name="include[]"\r\n\r\n%d\r\n' % number
        for number in range(3)
    )
    _, headers = form(b"")
    status, found = post(parts + b"--limit--\r\n", headers | {"Content-Length": str(len(parts) + 11)})
    assert (status, found) == (200, {"fields": [["include[]", str(number)] for number in range(3)]})


def of(text: str) -> bytes:
    """Body of a form, from a readable one."""
    return text.replace("|", "\r\n").encode("latin-1")


FIELD = '--limit|Content-Disposition: form-data; name="a"||1|'
FILE = '--limit|Content-Disposition: form-data; name="file"; filename="a"||1|'
END = "--limit--|"
BROKEN = {
    "truncated": (FILE, "ends before its last boundary"),
    "truncated within a header": (FIELD + '--limit|Content-Disp', "ends before its last boundary"),
    "empty": ("", "ends before its last boundary"),
    "another boundary": (FILE.replace("--limit", "--other") + END, "Expected boundary"),
    "no name": ("--limit|X: y||1|" + END, "a part has no name"),
    "two files": (FILE + FILE + END, "there are two files"),
    "an empty file": (FILE.replace("||1|", "|||") + END, "is empty (0 bytes)"),
    "a file in another field": (FILE.replace('"file"', '"audio"') + END, "goes into the field 'file'"),
    "text in place of the file": (FIELD.replace('"a"', '"file"') + END, "the field 'file' is text"),
    "many fields": (FIELD * 4 + END, "there are over 3 fields"),
    "a long field": (FIELD.replace("||1|", "||" + "1" * 501 + "|") + END, "has over 500 bytes"),
    "long headers": (FIELD.replace("||1", f"|X: {'y' * 400}||1") + END, "headers of over 400 bytes"),
    "no UTF-8": (FIELD.replace("||1", "||\xff") + END, "the field 'a' is not UTF-8"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_form_is_refused(case):
    body, message = BROKEN[case]
    status, found = error(of(body), {"Content-Type": "multipart/form-data; boundary=limit"})
    assert status == 400
    assert message in found


@pytest.mark.parametrize("kind", ["application/json", "application/x-www-form-urlencoded", "", "multipart"])
def test_another_content_type_is_refused(kind):
    status, found = error(b"{}", {"Content-Type": kind} if kind else {})
    assert status == 415
    assert "multipart/form-data" in found


@pytest.mark.parametrize("boundary", ["", "; boundary=", "; boundary=" + "x" * 300])
def test_a_form_without_a_boundary_is_refused(boundary):
    status, found = error(of(FILE + END), {"Content-Type": "multipart/form-data" + boundary})
    assert status == 400
    assert "boundary" in found


def test_a_declared_size_beyond_the_limit_is_refused_before_anything_is_read():
    _, headers = form(b"")
    status, found = error([PAUSE], headers | {"Content-Length": str(10 << 30)})
    assert status == 413
    assert "0.0953674 MiB" in found


def test_chunks_beyond_the_limit_are_cut_there():
    body, headers = form(bytes(200_000))
    del headers["Content-Length"]
    sent = [body[at : at + 1000] for at in range(0, len(body), 1000)]
    assert error(sent, headers)[0] == 413


@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_body_that_stalls_is_given_up(at):
    body, headers = form(bytes(3000))
    pieces = [body[:50], body[50:100], body[100:]]
    pieces.insert(at, PAUSE)
    status, found = error(pieces, headers)
    assert status == 408
    assert f"{50 * at} bytes" in found


def test_a_client_that_leaves_is_answered_nothing_and_counted():
    app = application()
    body, headers = form(bytes(3000))
    assert post([body[:2000], LEAVE], headers, app) == (0, {})
    assert 'tritone:requests_total{status="499"} 1.0' in app.state.server.metrics.text().decode()
    assert app.state.server.upload_bytes == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EMFILE])
def test_a_full_disk_is_an_error_of_that_request_alone(number, monkeypatch):
    app, (body, headers) = application(), form(bytes(3000))

    def fail(*_: object) -> None:
        raise OSError(number, "no room")

    with monkeypatch.context() as patch:
        patch.setattr(uploads, "_write_out" if number != errno.EMFILE else "_temporary_file", fail)
        assert error(body, headers, app)[0] == 507
        assert post(*form(bytes(900)), app)[0] == 200
    assert post(body, headers, app)[0] == 200


def test_no_temporary_file_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    body, headers = form(bytes(3000))
    assert post(body, headers)[0] == 200
    assert error([body[:-20]], headers)[0] == 400
    assert post([body[:2000], LEAVE], headers)[0] == 0
    monkeypatch.setattr(uploads, "_DESCRIPTORS", tmp_path / "none")  # as where a file needs a name
    assert post(body, headers)[1]["in"] == "file"
    assert error([body[:-20]], headers)[0] == 400
    assert list(tmp_path.iterdir()) == []
