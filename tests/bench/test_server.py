"""The load test of the server: its uploads, its client, and its judgment, without a server of ours."""

import asyncio
import time
from pathlib import Path

import pytest


@pytest.fixture
def upload(bench, tmp_path):
    """Function that makes an upload of a small file."""

    def make(**conduct):
        (tmp_path / "one.wav").write_bytes(bytes(1000))
        return bench["uploads"].Upload(str(tmp_path / "one.wav"), 1.0, **conduct)

    return make


def sent_to(bench, upload, respond):
    """Answer to an upload from a server whose answers `respond` returns, and what that server read."""
    bodies = []

    async def handle(reader, writer):
        bodies.append(b"")
        while b"--\r\n" not in bodies[-1] and (block := await reader.read(1 << 16)):
            bodies[-1] += block
        writer.write(respond(len(bodies)))
        writer.close()

    async def send():
        async with await asyncio.start_server(handle, bench["client"].HOST, 0) as server:
            port = server.sockets[0].getsockname()[1]
            (answer,) = await bench["client"].send_all([upload], port, "digits", 5.0)
            return answer

    return asyncio.run(send()), bodies


def response(status, body="", **headers):
    lines = [f"HTTP/1.1 {status} OK", f"content-length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def test_a_refused_upload_is_sent_again_after_the_seconds_that_the_server_names(bench, upload):
    begin = time.monotonic()
    refused, fine = response(429, retry_after="0.2"), response(200, '{"text": "one"}')
    answer, bodies = sent_to(bench, upload(), lambda attempt: fine if attempt == 3 else refused)
    assert (answer.status, answer.body, answer.refusals) == (200, '{"text": "one"}', [0.2, 0.2])
    assert time.monotonic() - begin > 0.4
    assert bodies[0] == bodies[2]
    assert bytes(1000) in bodies[0]


def test_a_client_leaves_in_the_midst_of_its_upload_or_while_it_waits(bench, upload):
    answer, bodies = sent_to(bench, upload(leaves="uploading", moment=0.5), lambda _: response(200))
    assert answer.left
    assert 0 < len(bodies[0]) < 1200
    answer, bodies = sent_to(bench, upload(leaves="waiting", moment=0.0), lambda _: b"")
    assert answer.left
    assert len(bodies[0]) > 1200


def test_a_connection_that_ends_without_an_answer_is_an_error(bench, upload):
    answer, _ = sent_to(bench, upload(), lambda _: b"HTTP/1.1 200")
    assert answer.status is None
    assert "IncompleteReadError" in bench["load"].judge(upload(), answer, "one")


@pytest.mark.parametrize(
    ("conduct", "status", "body", "alone", "is_right"),
    [
        ({}, 200, '{"text": "one"}', "one", True),
        ({}, 200, '{"text": "two"}', "one", False),
        ({}, 500, '{"error": {"message": "no"}}', "one", False),
        ({"fault": "cut"}, 200, '{"text": "one"}', "one", True),
        ({"fault": "garbage"}, 400, '{"error": {"message": "no audio"}}', None, True),
        ({"fault": "garbage"}, 200, '{"text": ""}', None, False),
        ({"fault": "garbage"}, 500, '{"error": {"message": "no audio"}}', None, False),
        ({"fault": "field"}, 422, "no file", "one", False),
    ],
)
def test_answers_are_judged_by_the_file_alone(bench, upload, conduct, status, body, alone, is_right):
    answer = bench["client"].Answer("one.wav", begin=0.0, end=1.0, status=status, body=body)
    assert (bench["load"].judge(upload(**conduct), answer, alone) is None) is is_right


def test_uploads_depend_on_the_seed_alone(bench, tmp_path):
    made = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        made.append(bench["uploads"].make_uploads(tmp_path / name, 12))
    one, other = ([(Path(each.path).name, each.seconds, each.moment) for each in of_one] for of_one in made)
    assert one == other
    assert Path(made[0][0].path).read_bytes() == Path(made[1][0].path).read_bytes()
    assert sum(one.leaves is not None for one in made[0]) == 1
    assert sum(one.fault is not None for one in made[0]) == 1
    assert len(bench["uploads"].good(made[0])) == 10
