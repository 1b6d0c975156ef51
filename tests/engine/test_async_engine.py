"""The engine under asyncio: results, pieces and cancellation of many tasks, on the threads that it has."""

import asyncio
import gc
import io
import threading
import time
import weakref
from contextlib import aclosing, suppress

import numpy as np
import pytest
import soundfile

import tritone
from tritone.engine.audio.reader import AudioError

SOON = 60  # seconds


@pytest.fixture(scope="module")
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


def run(use, engine):
    """Result of a coroutine function that uses an asynchronous view of the engine."""
    return asyncio.run(asyncio.wait_for(use(tritone.AsyncEngine.of(engine)), SOON))


def test_many_tasks_get_what_the_engine_gives_and_take_no_thread_each(engine, waveforms):
    wanted = list(engine.transcribe(waveforms, max_new_tokens=12))
    threads = set()

    async def use(view):
        tasks = [asyncio.create_task(view.transcribe(one, max_new_tokens=12)) for one in 10 * waveforms]
        await asyncio.sleep(0.05)
        threads.update(threading.enumerate())
        return await asyncio.gather(*tasks)

    before = threading.active_count()
    assert run(use, engine) == 10 * wanted
    assert len(threads) == before


def test_the_pieces_of_a_stream_join_to_the_text(engine, waveforms):
    async def use(view):
        streams = [[piece async for piece in view.stream(one, max_new_tokens=9)] for one in waveforms[:4]]
        handle = view.submit(waveforms[0], max_new_tokens=9)
        return [*streams, [piece async for piece in handle]], (await handle).text

    streams, text = run(use, engine)
    wanted = [result.text for result in engine.transcribe(waveforms[:4], max_new_tokens=9)]
    assert ["".join(pieces) for pieces in streams] == [*wanted, wanted[0]]
    assert text == wanted[0]
    assert max(map(len, streams)) > 1


def wait_until_idle(engine):
    until = time.monotonic() + SOON
    while (stats := engine.stats()).running or stats.waiting or stats.pages_used:
        assert time.monotonic() < until, stats
        time.sleep(0.002)


@pytest.mark.parametrize("way", ["transcribe", "handle", "iterate", "stream", "leave"])
def test_a_cancelled_task_cancels_its_request_and_no_other(engine, waveforms, way):
    before = engine.stats().cancelled
    options = {"max_new_tokens": 50, "min_new_tokens": 50}

    async def wait_for(view):
        if way == "transcribe":
            await view.transcribe(waveforms[1], **options)
        elif way == "handle":
            await view.submit(waveforms[1], **options)
        elif way == "iterate":
            async for _ in view.submit(waveforms[1], **options):
                pass
        elif way == "leave":
            async with aclosing(view.stream(waveforms[1], **options)) as pieces:
                async for _ in pieces:
                    return
        else:
            async for _ in view.stream(waveforms[1], **options):
                pass

    async def use(view):
        other = asyncio.create_task(view.transcribe(waveforms[2], max_new_tokens=12))
        task = asyncio.create_task(wait_for(view))
        await asyncio.sleep(0.02)
        if way != "leave":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            await task
        return await other

    assert run(use, engine) == next(engine.transcribe([waveforms[2]], max_new_tokens=12))
    wait_until_idle(engine)
    assert engine.stats().cancelled == before + 1


def test_a_shielded_request_outlives_its_task(engine, waveforms):
    async def use(view):
        handle = view.submit(waveforms[3], max_new_tokens=40)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(handle), 0.001)
        return await handle

    assert run(use, engine).finish_reason in ("stop", "length")


def test_errors_are_raised_where_the_result_is_awaited(engine):
    async def use(view):
        with pytest.raises(AudioError, match="not audio"):
            await view.transcribe(b"no audio")
        with pytest.raises(AudioError, match="not audio"):
            async for _ in view.stream(b"no audio"):
                pass
        with pytest.raises(ValueError, match="num_beans"):
            await view.transcribe(b"", num_beans=3)

    run(use, engine)


class Upload(io.BytesIO):
    """File object of a web framework, whose `read` is a coroutine."""

    filename = "upload.wav"

    async def read(self, size=-1):
        await asyncio.sleep(0)
        return super().read(size)


def test_every_kind_of_source_gives_the_same_result(engine, waveforms, tmp_path):
    path, wave = tmp_path / "a.wav", waveforms[4]
    soundfile.write(path, wave, 16_000, subtype="FLOAT")
    content = path.read_bytes()

    async def use(view):
        with path.open("rb") as file:
            sources = [
                *(path, str(path), content, file, io.BytesIO(content), Upload(content), wave, (wave, 16_000)),
                *({"array": wave, "sampling_rate": 16_000}, {"bytes": content, "path": None}),
                {"path": str(path), "bytes": None},
            ]
            return [await view.transcribe(source, max_new_tokens=12) for source in sources]

    results = run(use, engine)
    assert {result.token_ids for result in results} == {results[0].token_ids}
    assert [result.token_ids for result in engine.transcribe([(wave, 16_000)], max_new_tokens=12)] == [
        results[0].token_ids
    ]


def test_a_source_with_a_rate_is_resampled_and_may_not_contradict_the_call(engine):
    low = (0.1 * np.sin(np.arange(8000) / 9)).astype(np.float32)
    pair, row = engine.submit((low, 8000)), engine.submit({"array": low, "sampling_rate": 8000})
    named = engine.submit(low, sampling_rate=8000).result(SOON)
    assert pair.result(SOON) == row.result(SOON) == named
    assert named.duration == 1
    with pytest.raises(AudioError, match="8000 Hz, and sampling_rate is 16000"):
        engine.submit((low, 8000), sampling_rate=16_000).result(SOON)
    with pytest.raises(AudioError, match="keys 'text'; it needs 'array'"):
        engine.submit({"text": "a"}).result(SOON)
    with pytest.raises(ValueError, match="put the dict into a list"):
        engine.transcribe({"array": low, "sampling_rate": 8000})


def test_closing_finishes_what_was_submitted_and_leaving_by_an_error_cancels(checkpoint, waveforms):
    async def finish():
        async with tritone.AsyncEngine(checkpoint, device="cpu", num_rows=4) as view:
            handles = [view.submit(one, max_new_tokens=9) for one in waveforms[:8]]
        return [await handle for handle in handles]

    async def fail():
        with suppress(KeyError):
            async with tritone.AsyncEngine(checkpoint, device="cpu", num_rows=4) as view:
                handles = [view.submit(one, min_new_tokens=50, max_new_tokens=50) for one in waveforms]
                raise KeyError
        return [(await handle).finish_reason for handle in handles]

    assert {result.finish_reason for result in asyncio.run(finish())} <= {"stop", "length"}
    assert "cancelled" in asyncio.run(fail())


def test_an_event_loop_that_is_closed_leaves_nothing_behind(engine, waveforms):
    loops = []

    async def leave(view):
        loops.append(weakref.ref(asyncio.get_running_loop()))
        asyncio.ensure_future(view.transcribe(waveforms[0], min_new_tokens=50, max_new_tokens=50))  # noqa: RUF006
        await asyncio.sleep(0.01)

    for _ in range(5):
        run(leave, engine)
    wait_until_idle(engine)
    gc.collect()
    assert [loop() for loop in loops] == [None] * 5
