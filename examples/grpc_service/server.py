"""Service of speech.proto around one engine, with the health service of gRPC.

python -m grpc_tools.protoc -I examples/grpc_service --python_out=build --grpc_python_out=build speech.proto
PYTHONPATH=build python examples/grpc_service/server.py 50051
"""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import grpc
import speech_pb2
import speech_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

import tritone

MAX_BYTES = 50 << 20  # of a recording


class Speech(speech_pb2_grpc.SpeechServicer):
    """Transcription by an engine; the coroutine of a call is cancelled when its client leaves."""

    def __init__(self, engine: tritone.AsyncEngine) -> None:
        self.engine = engine

    async def Transcribe(
        self, chunks: AsyncIterator[speech_pb2.Chunk], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[speech_pb2.Reply]:
        content = bytearray()
        async for chunk in chunks:
            content += chunk.content
            if len(content) > MAX_BYTES:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"more than {MAX_BYTES} bytes")
        left = context.time_remaining()  # seconds; None, or a number of years, without a deadline
        deadline = None if left is None else max(left, 0.001)
        try:
            handle = self.engine.submit(bytes(content), deadline=deadline)
        except tritone.QueueFullError as error:
            retry = (("retry-after", f"{error.retry_after:.0f}"),)  # seconds
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, str(error), retry)
        try:
            async for piece in handle:
                yield speech_pb2.Reply(text=piece)
            yield speech_pb2.Reply(result=message_of(await handle))
        except tritone.AudioError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except tritone.DeadlineError as error:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, str(error))
        finally:
            handle.cancel()  # where the client has left; an ended request stays as it is


class Health(health_pb2_grpc.HealthServicer):
    """Health of an engine as gRPC's health protocol has it."""

    def __init__(self, engine: tritone.AsyncEngine) -> None:
        self.engine = engine

    async def Check(
        self, request: health_pb2.HealthCheckRequest, context: grpc.aio.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        works = self.engine.health().status != "failed"
        return health_pb2.HealthCheckResponse(status="SERVING" if works else "NOT_SERVING")


def message_of(result: tritone.Transcription) -> speech_pb2.Result:
    """Message of a transcription."""
    return speech_pb2.Result(
        text=result.text,
        duration=result.duration,
        finish_reason=result.finish_reason,
        segments=[
            speech_pb2.Span(text=one.text, start=one.start, end=one.end) for one in result.segments or ()
        ],
        words=[speech_pb2.Span(text=one.text, start=one.start, end=one.end) for one in result.words or ()],
    )


async def serve(engine: tritone.AsyncEngine, port: int) -> None:
    """Serve until SIGTERM, then let the calls under way end."""
    server = grpc.aio.server()
    speech_pb2_grpc.add_SpeechServicer_to_server(Speech(engine), server)
    health_pb2_grpc.add_HealthServicer_to_server(Health(engine), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(grace=30)  # seconds


async def main(port: str = "50051", model: str = "digits") -> None:
    config = tritone.EngineConfig(max_waiting=100)
    async with tritone.AsyncEngine(model, config=config) as engine:
        await serve(engine, int(port))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
