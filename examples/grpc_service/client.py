"""Client of speech.proto: prints the pieces of a recording's text as they come, then the result.

PYTHONPATH=build python examples/grpc_service/client.py samples/digits/six_digits_16k.flac 50051
"""

import asyncio
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import speech_pb2
import speech_pb2_grpc

CHUNK = 64 << 10  # bytes


async def chunks(path: Path) -> AsyncIterator[speech_pb2.Chunk]:
    """Chunks of a file."""
    with path.open("rb") as file:
        while content := file.read(CHUNK):
            yield speech_pb2.Chunk(content=content)


async def main(path: str, port: str = "50051", timeout: str = "60") -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        speech = speech_pb2_grpc.SpeechStub(channel)
        async for reply in speech.Transcribe(chunks(Path(path)), timeout=float(timeout), wait_for_ready=True):
            if reply.WhichOneof("reply") == "text":
                print(reply.text, end="", flush=True)
            else:
                print(f"\n{reply.result.duration:.2f} s, {reply.result.finish_reason}")


if __name__ == "__main__":
    try:
        asyncio.run(main(*sys.argv[1:]))
    except grpc.aio.AioRpcError as error:
        sys.exit(f"{error.code().name}: {error.details()}")
