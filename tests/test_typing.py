"""Types of the public names as a program under mypy's strictest options sees them: no Any."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

PROGRAM = """
import asyncio
from typing import assert_type

import tritone


def threads(engine: tritone.Engine) -> None:
    handle = engine.submit("a.wav", language="en", num_beams=5, deadline=9.0)
    assert_type(handle, tritone.Handle[tritone.Transcription])
    for piece in handle:
        assert_type(piece, str)
    result = handle.result(timeout=1)
    assert_type(result, tritone.Transcription)
    for word in result.words or ():
        print(word.text, word.start, word.confidence)
    for segment in result.segments or ():
        print(segment.text, segment.end, segment.token_ids)
    if result.timings is not None and result.timings.first_token is not None:
        assert_type(result.timings.first_token, float)
    print(result.text, result.token_ids, result.finish_reason, result.duration, result.score, result.error)
    print(result.language, result.warnings, result.channel, result.source, result.to_srt(), handle.source)
    for each in engine.transcribe(["a.wav"], num_beams=5):
        assert_type(each, tritone.Transcription)
    for label in engine.submit_classification("a.wav", top_k=2).result().labels:
        print(label.label, label.score)
    for classes in engine.classify(["a.wav"]):
        assert_type(classes, tritone.Classification)
    print(handle.done(), handle.cancel(), handle.outcome().error)
    print(engine.config.max_waiting, engine.max_seconds, engine.sampling_rate, engine.max_ahead)
    health = engine.health()
    print(health.status, health.reason, engine.stats().running, engine.stats().rtfx)
    engine.close(cancel=True, timeout=3.0)


async def tasks() -> str:
    async with tritone.AsyncEngine("digits", config=tritone.EngineConfig(max_waiting=3)) as engine:
        assert_type(engine, tritone.AsyncEngine)
        text = ""
        async for piece in engine.stream("a.wav", num_beams=5):
            text += piece
        handle = engine.submit("a.wav")
        async for piece in handle:
            assert_type(piece, str)
        assert_type(await handle, tritone.Transcription)
        assert_type(await engine.transcribe(b"RIFF", deadline=3), tritone.Transcription)
        assert_type(await engine.classify("a.wav", top_k=1), tritone.Classification)
        assert_type(await engine.submit_classification("a.wav"), tritone.Classification)
        assert_type(engine.stats(), tritone.EngineStats)
        assert_type(engine.health(), tritone.EngineHealth)
        both = await asyncio.gather(engine.transcribe("a.wav"), engine.transcribe("b.wav"))
        return text + both[0].text


def errors(engine: tritone.Engine) -> float:
    try:
        engine.submit("a.wav").result()
    except tritone.QueueFullError as error:
        return error.retry_after
    except (tritone.DeadlineError, tritone.AudioError, tritone.TextError, tritone.CapacityError) as error:
        print(str(error))
    return 0.0


with tritone.Engine("digits", device="cpu", num_rows=4) as engine:
    threads(engine)
    errors(engine)
print(asyncio.run(tasks()), tritone.__version__)
"""

# Packages that the types above do not name are not looked into, which would take most of the time.
SETTINGS = """
[mypy]
strict = true
disallow_any_expr = true
follow_imports = silent
[mypy-torch.*,numpy.*,triton.*,av.*,soundfile.*,tritone.kernels.*,tritone.models.*,tritone.scheduler.*]
follow_imports = skip
ignore_missing_imports = true
[mypy-tritone.models,tritone.scheduler,tritone.scheduler.request,tritone.scheduler.config]
follow_imports = silent
[mypy-tritone.scheduler.scheduler,tritone.scheduler.block_allocator]
follow_imports = silent
"""


def test_a_program_under_mypys_strictest_options_sees_no_any(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    (tmp_path / "mypy.ini").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "program.py"],
        cwd=tmp_path,
        env={**os.environ, "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
