"""Client of the load test, in a process of its own: all uploads at once, over sockets of asyncio.

    python -m bench.server.client PORT MODEL UPLOADS.json ANSWERS.json [--timeout SECONDS]

An upload that is refused (429) is sent again after the seconds of its Retry-After, and up to half as many
more, so that the refused do not all come back at the same moment.
"""

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .uploads import Upload, load

HOST = "127.0.0.1"
_BOUNDARY = "tritone-load-test"
_BLOCK = 64 * 1024  # bytes that are written at once
_JITTER = 0.5  # of Retry-After


@dataclass(slots=True)
class Answer:
    """Course of one upload; times are those of time.monotonic()."""

    path: str
    begin: float
    end: float = 0.0
    status: int | None = None  # None: the client left, or there was no answer
    body: str = ""
    left: bool = False
    refusals: list[float] = field(default_factory=list)  # Retry-After of each, in seconds
    error: str | None = None  # of the connection, where there was no answer


@dataclass(frozen=True, slots=True)
class Response:
    """Response of the server."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes


class Left(Exception):
    """The client has left."""


async def send_all(uploads: Sequence[Upload], port: int, model: str, timeout: float) -> list[Answer]:
    """Send all uploads at once and wait for their ends, at most `timeout` seconds."""
    bodies = [_body(one, model) for one in uploads]
    begin = time.monotonic()
    answers = [Answer(one.path, begin) for one in uploads]
    course = (_follow(*of_one, port) for of_one in zip(uploads, bodies, answers, strict=True))
    tasks = [asyncio.ensure_future(one) for one in course]
    _, unfinished = await asyncio.wait(tasks, timeout=timeout)
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for answer in answers:
        if not answer.end:
            answer.end, answer.error = time.monotonic(), f"no answer in {timeout:.0f} s"
    return answers


async def _follow(upload: Upload, body: bytes, answer: Answer, port: int) -> None:
    """Send an upload until it is answered, or its client leaves, and note its course."""
    jitter = random.Random(upload.path)
    try:
        while True:
            response = await _request(upload, body, port)
            if response.status != 429:
                break
            wait = float(response.headers["retry-after"])
            answer.refusals.append(wait)
            await asyncio.sleep(wait * (1 + _JITTER * jitter.random()))
        answer.status, answer.body = response.status, response.body.decode()
    except Left:
        answer.left = True
    except (OSError, EOFError, ValueError, KeyError) as error:
        answer.error = repr(error)
    answer.end = time.monotonic()


async def _request(upload: Upload, body: bytes, port: int) -> Response:
    """Response to one attempt on a connection of its own; it may come before the whole body is sent."""
    reader, writer = await asyncio.open_connection(HOST, port)
    try:
        sending = asyncio.ensure_future(_send(upload, body, writer))
        receiving = asyncio.ensure_future(_receive(reader))
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            if not receiving.done():
                with suppress(ConnectionError):  # the response may have been sent before
                    await sending
            if upload.leaves == "waiting":
                await asyncio.wait((receiving,), timeout=upload.moment)
                if not receiving.done():
                    raise Left
            return await receiving
        finally:
            for task in (sending, receiving):
                task.cancel()
            await asyncio.gather(sending, receiving, return_exceptions=True)
    finally:
        writer.transport.abort()


async def _send(upload: Upload, body: bytes, writer: asyncio.StreamWriter) -> None:
    """Send the request, or that share of it after which the client leaves."""
    head = (
        f"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n"
        f"Content-Type: multipart/form-data; boundary={_BOUNDARY}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode())
    leaving = upload.leaves == "uploading"
    end = round(upload.moment * len(body)) if leaving else len(body)
    for start in range(0, end, _BLOCK):
        writer.write(body[start : min(start + _BLOCK, end)])
        await writer.drain()
    if leaving:
        raise Left


async def _receive(reader: asyncio.StreamReader) -> Response:
    """Read a response."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length")
    body = await (reader.read() if length is None else reader.readexactly(int(length)))
    return Response(int(first.split()[1]), headers, body)


def _body(upload: Upload, model: str) -> bytes:
    """Form of an upload: file, model and response_format, and nothing else."""
    name = "audio" if upload.fault == "field" else "file"
    path = Path(upload.path)
    fields = {"model": model, "response_format": "json"}
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n'.encode()
        for key, value in fields.items()
    ]
    head = f'form-data; name="{name}"; filename="{path.name}"\r\nContent-Type: application/octet-stream'
    parts += [f"--{_BOUNDARY}\r\nContent-Disposition: {head}\r\n\r\n".encode(), path.read_bytes()]
    return b"".join([*parts, f"\r\n--{_BOUNDARY}--\r\n".encode()])


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("model")
    parser.add_argument("uploads", type=Path)
    parser.add_argument("answers", type=Path)
    parser.add_argument("--timeout", type=float, default=600)
    given = parser.parse_args()
    answers = asyncio.run(send_all(load(given.uploads), given.port, given.model, given.timeout))
    given.answers.write_text(json.dumps([asdict(one) for one in answers]))


if __name__ == "__main__":
    main()
