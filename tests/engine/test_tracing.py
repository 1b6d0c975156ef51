"""Spans of requests for OpenTelemetry: one a request below the caller's, and no cost without a provider."""

import asyncio
import subprocess
import sys
import timeit

import pytest

import tritone
from tritone.engine.tracing import span_maker

trace = pytest.importorskip("opentelemetry.trace")
sdk = pytest.importorskip("opentelemetry.sdk.trace")

from opentelemetry.sdk.trace.export import SimpleSpanProcessor  # noqa: E402
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter  # noqa: E402

PHASES = ["tritone.queue", "tritone.read", "tritone.encode", "tritone.decode"]


@pytest.fixture(scope="module")
def engine(checkpoint):
    with tritone.Engine(checkpoint, device="cpu", num_rows=8) as engine:
        yield engine


@pytest.fixture
def provider(monkeypatch):
    """A provider of this test alone: a program can set only one."""
    provider = sdk.TracerProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    return provider


@pytest.fixture
def exporter(provider):
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return exporter


def spans(exporter, name):
    return [span for span in exporter.get_finished_spans() if span.name == name]


def seconds(span):
    return (span.end_time - span.start_time) / 1e9


def test_a_request_has_a_span_below_the_callers_with_its_phases(engine, exporter, provider, waveforms):
    with provider.get_tracer("test").start_as_current_span("caller") as caller:
        handle = engine.submit(waveforms[0], max_new_tokens=9)
    result = handle.result()
    [span] = spans(exporter, "tritone.transcribe")
    assert span.parent == caller.get_span_context()
    assert seconds(span) == pytest.approx(result.timings.total, abs=1e-6)
    attributes = dict(span.attributes)
    assert attributes.pop("gen_ai.request.model") == engine._name
    for phase in ("queue", "read", "encode", "decode"):
        assert attributes.pop(f"tritone.{phase}_seconds") == getattr(result.timings, phase)
    assert attributes == {
        "gen_ai.operation.name": "transcribe",
        "gen_ai.provider.name": "tritone",
        "gen_ai.response.finish_reasons": (result.finish_reason.value,),
        "gen_ai.usage.output_tokens": len(result.token_ids),
        "gen_ai.response.time_to_first_chunk": result.timings.first_token,
        "tritone.audio_seconds": result.duration,
    }
    phases = [one for one in exporter.get_finished_spans() if one.name in PHASES]
    assert {one.parent.span_id for one in phases} == {span.context.span_id}
    assert [one.name for one in phases] == [name for name in PHASES if name in {one.name for one in phases}]
    assert sum(map(seconds, phases)) <= seconds(span) + 1e-3
    assert span.start_time == phases[0].start_time


def test_each_task_is_the_parent_of_its_own_requests(engine, exporter, provider, waveforms):
    view = tritone.AsyncEngine.of(engine)
    tracer = provider.get_tracer("test")

    async def ask(waveform):
        with tracer.start_as_current_span("caller"):
            await view.transcribe(waveform, max_new_tokens=5)

    async def ask_all():
        await asyncio.gather(*map(ask, waveforms[:5]))

    asyncio.run(ask_all())
    callers = {one.context.span_id for one in spans(exporter, "caller")}
    assert {one.parent.span_id for one in spans(exporter, "tritone.transcribe")} == callers
    assert len(callers) == 5


def test_a_failed_request_has_its_error_in_its_span(engine, exporter, tmp_path):
    error = engine.submit(tmp_path / "missing.wav").outcome().error
    [span] = spans(exporter, "tritone.transcribe")
    assert span.status.status_code is trace.StatusCode.ERROR
    assert span.status.description == str(error)
    assert span.attributes["error.type"] == type(error).__name__
    assert [event.name for event in span.events] == ["exception"]


def test_a_processor_that_raises_ends_no_request(engine, provider, waveforms, caplog):
    class Broken(sdk.SpanProcessor):
        def on_start(self, span, parent_context=None):
            raise OSError("the disk is full")

    provider.add_span_processor(Broken())
    assert engine.submit(waveforms[0], max_new_tokens=5).result().error is None
    assert "the span of a request is lost" in caplog.text
    assert engine.health().status == "ok"


def test_nothing_is_made_without_a_provider():
    assert span_maker("transcribe", "digits") is None
    assert min(timeit.repeat(lambda: span_maker("transcribe", "digits"), number=1000)) < 0.01  # seconds


def test_a_program_without_the_library_never_imports_it():
    code = (
        "import sys, tritone\n"
        "with tritone.Engine('digits', device='cpu') as engine:\n"
        "    engine.submit('samples/digits/one_digit_8k.wav').result()\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == "[]\n", done.stderr
