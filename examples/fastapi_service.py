"""Service around one engine: upload, server-sent events, cancellation, limits, health; docs/embedding.md."""

from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException, Response, UploadFile, sse

from tritone import AsyncEngine, AudioError, DeadlineError, EngineConfig, EngineHealth, Handle, QueueFullError


@asynccontextmanager
async def lifespan(app: FastAPI):  # once a process, behind any fork
    async with AsyncEngine("digits", config=EngineConfig(max_waiting=100)) as app.state.engine:
        yield


app = FastAPI(lifespan=lifespan, max_body_size=50 << 20)  # bytes; 413 beyond


async def events(handle: Handle):  # a client that leaves cancels this task, and so its request
    try:
        async for piece in handle:
            yield sse.format_sse_event(data_str=piece)
        yield sse.format_sse_event(event="done", data_str=(await handle).to_json())
    except (AudioError, DeadlineError) as error:
        yield sse.format_sse_event(event="error", data_str=str(error))


@app.post("/transcribe")
async def transcribe(file: UploadFile) -> sse.EventSourceResponse:
    try:
        handle = app.state.engine.submit(await file.read(), deadline=60)  # seconds
    except QueueFullError as error:
        raise HTTPException(429, str(error), {"Retry-After": f"{error.retry_after:.0f}"}) from error
    return sse.EventSourceResponse(events(handle))


@app.get("/health")
async def health(response: Response) -> EngineHealth:
    response.status_code = 503 if app.state.engine.health().status == "failed" else 200
    return app.state.engine.health()
