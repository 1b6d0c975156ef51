"""Metrics of the server in Prometheus's format, by the names that serving engines have for them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ..async_engine import AsyncEngine
from ..stats import EngineStats

MODEL = "model_name"  # label
_SHORT = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)  # seconds
_LONG = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800)
# Reasons of failures, by the status of the answer; any other is "invalid_request" below 500.
REASONS = {
    401: "unauthorized",
    404: "not_found",
    408: "slow_client",
    413: "too_large",
    429: "queue_full",
    499: "client_left",
    503: "unavailable",
    504: "deadline",
    507: "disk_full",
}


class Metrics:
    """Counters and histograms of a server, on a registry of their own.

    Args:
        engines: engines by the names of their models, whose gauges are read at each scrape.
    """

    def __init__(self, engines: Mapping[str, AsyncEngine]) -> None:
        self.registry = registry = CollectorRegistry()
        registry.register(_EngineCollector(engines))
        ProcessCollector(registry=registry)

        def seconds(name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"tritone:{name}_seconds", text, [MODEL], buckets=buckets, registry=registry)

        self._times = {  # by the field of a result's timings
            "first_token": seconds("time_to_first_token", "From submission to the first token.", _LONG),
            "total": seconds("e2e_request_latency", "From submission to the result.", _LONG),
            "queue": seconds("request_queue_time", "Waiting for a reading thread.", _LONG),
            "read": seconds("request_read_time", "Decoding and resampling of the recording.", _SHORT),
            "encode": seconds("request_encode_time", "Encoding.", _SHORT),
            "decode": seconds("request_decode_time", "Decoding of text.", _LONG),
        }
        self._requests = Counter(
            "tritone:requests", "Answered requests of the API.", ["status"], registry=registry
        )
        self._failed = Counter(
            "tritone:requests_failed", "Requests of the API without a result.", ["reason"], registry=registry
        )
        for model in engines:
            for histogram in self._times.values():
                histogram.labels(model)
        for reason in (*REASONS.values(), "invalid_request", "server_error"):
            self._failed.labels(reason)

    def observe(self, model: str, result: Any) -> None:
        """Count the times of a result, where it has any."""
        timings = getattr(result, "timings", None)
        for name, histogram in self._times.items():
            if (value := getattr(timings, name, None)) is not None:
                histogram.labels(model).observe(value)

    def count(self, status: int) -> None:
        """Count an answer."""
        self._requests.labels(str(status)).inc()
        if status >= 400:
            self._failed.labels(
                REASONS.get(status, "invalid_request" if status < 500 else "server_error")
            ).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus's text format."""
        return generate_latest(self.registry)


class _EngineCollector(Collector):
    """Collector of the engines' own statistics."""

    def __init__(self, engines: Mapping[str, AsyncEngine]) -> None:
        self._engines = engines

    def describe(self) -> Iterator[Metric]:
        """Nothing: the names are known without a look at the engines."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Read the statistics of each engine."""
        stats = {name: engine.stats() for name, engine in self._engines.items()}

        def family(kind: Any, name: str, text: str, value: Callable[[EngineStats], float]) -> Metric:
            made: Metric = kind(f"tritone:{name}", text, labels=[MODEL])
            for model, one in stats.items():
                made.add_metric([model], value(one))  # type: ignore[attr-defined]
            return made

        gauge, counter = partial(family, GaugeMetricFamily), partial(family, CounterMetricFamily)
        yield gauge("num_requests_running", "Requests in the batch.", lambda one: one.running)
        yield gauge("num_requests_waiting", "Requests to be read or admitted.", lambda one: one.waiting)
        yield gauge(
            "kv_cache_usage_perc",
            "Used share of the key-value cache; 1 is all.",
            lambda one: one.pages_used / one.pages_total if one.pages_total else 0.0,
        )
        yield gauge("rtfx", "Seconds of audio per second with a request in progress.", lambda one: one.rtfx)
        up = GaugeMetricFamily("tritone:engine_up", "1 where the engine takes requests.", labels=[MODEL])
        for model, engine in self._engines.items():
            up.add_metric([model], engine.health().status != "failed")
        yield up
        yield counter("generation_tokens", "Tokens of all hypotheses.", lambda one: one.tokens_generated)
        yield counter("audio_seconds", "Audio in finished requests.", lambda one: one.audio_seconds)
