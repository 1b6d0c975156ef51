"""The gRPC service of the examples, and its client: code made from speech.proto, real processes."""

import importlib
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from services import EXAMPLES, ROOT, SIX, SOON, TEXT, digits, free_port, running

FOLDER = EXAMPLES / "grpc_service"

# The example with room for few requests, and with the engine's counters in a file.
SMALL = """
import asyncio, dataclasses, json, os, server, sys, tritone

async def note(engine, path):
    while True:
        with open(path + ".new", "w") as file:
            json.dump(dataclasses.asdict(engine.stats()), file)
        os.replace(path + ".new", path)
        await asyncio.sleep(0.02)

async def main(port, path):
    config = tritone.EngineConfig(max_waiting=1, num_rows=1)
    async with tritone.AsyncEngine("digits", config=config) as engine:
        noting = asyncio.create_task(note(engine, path))
        await server.serve(engine, int(port))
        noting.cancel()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder on the path of processes with the code made from speech.proto."""
    folder = tmp_path_factory.mktemp("grpc")
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", FOLDER]
    command += [f"--python_out={folder}", f"--grpc_python_out={folder}", "speech.proto"]
    subprocess.run(command, check=True, timeout=SOON)
    (folder / "small_server.py").write_text(SMALL)
    before = os.environ.get("PYTHONPATH", "")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(folder), str(FOLDER), before]))
    sys.path.append(str(folder))
    yield folder
    sys.path.remove(str(folder))
    os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def service(folder):
    port = free_port()
    with running(folder / "log", port, "small_server", port, folder / "stats") as service:
        yield service


@pytest.fixture(scope="module")
def channel(service):
    with grpc.insecure_channel(f"127.0.0.1:{service.port}") as channel:
        yield channel


@pytest.fixture(scope="module")
def messages(folder):
    return importlib.import_module("speech_pb2")


@pytest.fixture(scope="module")
def speech(channel, messages):
    return importlib.import_module("speech_pb2_grpc").SpeechStub(channel)


@pytest.fixture
def chunks(messages):
    """Function that cuts a file's content into messages."""
    return lambda content: (
        messages.Chunk(content=content[at : at + 65536]) for at in range(0, len(content), 65536)
    )


def wait_for(folder, condition) -> dict:
    until = time.monotonic() + SOON
    while not condition(stats := json.loads((folder / "stats").read_text())):
        assert time.monotonic() < until, stats
        time.sleep(0.02)
    return stats


def test_the_client_prints_the_text_and_the_seconds(service):
    command = [sys.executable, FOLDER / "client.py", SIX, str(service.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, cwd=ROOT)
    assert (done.stdout, done.returncode) == (f"{TEXT}\n3.00 s, stop\n", 0), done.stderr


def test_the_client_names_what_is_wrong_with_a_file(service):
    command = [sys.executable, FOLDER / "client.py", FOLDER / "speech.proto", str(service.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SOON, cwd=ROOT)
    assert done.returncode == 1
    assert done.stderr.startswith("INVALID_ARGUMENT: audio of ")


def test_pieces_join_to_the_text_of_the_result(speech, chunks):
    *pieces, last = speech.Transcribe(chunks(SIX.read_bytes()))  # without a deadline
    assert "".join(reply.text for reply in pieces) == last.result.text == TEXT
    assert len(pieces) > 1


def test_a_cancelled_call_cancels_its_request(folder, speech, chunks):
    before = wait_for(folder, lambda stats: not stats["running"])["cancelled"]
    call = speech.Transcribe(chunks(digits(20)))
    assert next(call).text
    call.cancel()
    wait_for(folder, lambda stats: stats["cancelled"] == before + 1 and not stats["running"])


def test_a_full_queue_and_a_deadline_have_their_codes(speech, chunks):
    def end(timeout: float) -> grpc.StatusCode:
        try:
            for _ in speech.Transcribe(chunks(digits(4)), timeout=timeout):
                pass
        except grpc.RpcError as error:
            return error.code()
        return grpc.StatusCode.OK

    with ThreadPoolExecutor(8) as threads:
        codes = [*threads.map(end, [SOON] * 7 + [0.05])]
    assert codes[-1] in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.RESOURCE_EXHAUSTED)
    assert {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED} == set(codes[:-1])
    assert end(0.05) is grpc.StatusCode.DEADLINE_EXCEEDED


def test_the_health_service_answers(channel):
    reply = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
