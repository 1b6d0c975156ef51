"""Spans of requests for OpenTelemetry, in a program that has configured it; elsewhere nothing is imported."""

import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .outputs import Classification, Transcription

if TYPE_CHECKING:
    from .timings import Timings

_log = logging.getLogger(__name__)
_PHASES = ("queue", "read", "encode", "decode")  # in their order; fields of Timings
_ROUNDING = 1e-3  # seconds by which phases of a request may exceed their sum


def span_maker(verb: str, model: str) -> Callable[[Transcription | Classification], None] | None:
    """Function that makes the span of a request that begins now from its result, below the caller's span.

    Args:
        verb: "transcribe" or "classify".
        model: name of the model.

    Returns:
        None in a program without a tracer provider.
    """
    trace = sys.modules.get("opentelemetry.trace")  # imported by any program that configures it
    if trace is None:
        return None
    provider = trace.get_tracer_provider()
    if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
        return None
    from opentelemetry import context

    parent, start = context.get_current(), time.time_ns()

    def make(result: Transcription | Classification) -> None:
        try:
            _make(trace, provider.get_tracer("tritone"), verb, model, result, parent, start)
        except Exception:  # of a span processor, which must not end the engine
            _log.warning("the span of a request is lost", exc_info=True)

    return make


def _make(
    trace: Any,
    tracer: Any,
    verb: str,
    model: str,
    result: Transcription | Classification,
    parent: Any,
    start: int,
) -> None:
    """Make the span of a request that has ended, and one of each phase below it."""
    timings = result.timings
    assert timings is not None  # of an engine's request
    attributes = {
        "gen_ai.operation.name": verb,
        "gen_ai.provider.name": "tritone",
        "gen_ai.request.model": model,
        "gen_ai.response.finish_reasons": (str(result.finish_reason),),
        "tritone.audio_seconds": result.duration,
    }
    attributes |= {f"tritone.{phase}_seconds": getattr(timings, phase) for phase in _PHASES}
    if isinstance(result, Transcription):
        attributes["gen_ai.usage.output_tokens"] = len(result.token_ids)
    if timings.first_token is not None:
        attributes["gen_ai.response.time_to_first_chunk"] = timings.first_token
    if result.error is not None:
        attributes["error.type"] = type(result.error).__qualname__
    span = tracer.start_span(
        f"tritone.{verb}",
        context=parent,
        start_time=start,
        attributes=attributes,
        kind=trace.SpanKind.INTERNAL,
    )
    if result.error is not None:
        span.record_exception(result.error)
        span.set_status(trace.StatusCode.ERROR, str(result.error))
    _make_phases(tracer, trace.set_span_in_context(span, parent), timings, start)
    span.end(start + _nanoseconds(timings.total))


def _make_phases(tracer: Any, parent: Any, timings: "Timings", start: int) -> None:
    """Make a span of each phase, one behind the other; none where phases of several windows overlap."""
    if sum(getattr(timings, phase) for phase in _PHASES) > timings.total + _ROUNDING:
        return
    for phase in _PHASES:
        if seconds := getattr(timings, phase):
            end = start + _nanoseconds(seconds)
            tracer.start_span(f"tritone.{phase}", context=parent, start_time=start).end(end)
            start = end


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
