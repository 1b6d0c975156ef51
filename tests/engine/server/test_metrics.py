"""Metrics, health and readiness, and the dashboard that shows them."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from servers import DIGITS

pytest.importorskip("fastapi")
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from tritone import AsyncEngine
from tritone.engine.server.app import create_app
from tritone.engine.server.metrics import Metrics
from tritone.engine.server.models import ServedModels
from tritone.engine.server.settings import ServerSettings
from tritone.engine.stats import EngineHealth

DEPLOY = Path(__file__).parents[3] / "examples" / "deploy"


@pytest.fixture(scope="module")
def client():
    models = ServedModels({"digits": AsyncEngine("digits", device="cpu")})
    with TestClient(create_app(models, ServerSettings())) as client:
        client.models = models
        yield client


def samples(text: str) -> dict[tuple[str, str], float]:
    """Values by the name of a metric and its label, without those of histograms' buckets."""
    return {
        (sample.name, *(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }


def transcribe(client: TestClient, content: bytes, **fields: str):
    return client.post("/v1/audio/transcriptions", files={"file": ("a.flac", content)}, data=fields)


def test_requests_are_counted_by_status_and_reason(client):
    before = samples(client.get("/metrics").text)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: transcribe(client, DIGITS.read_bytes()), range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert transcribe(client, b"no audio").status_code == 400
    assert transcribe(client, DIGITS.read_bytes(), model="no-such").status_code == 404
    assert client.post("/v1/audio/transcriptions", json={}).status_code == 415
    after = samples(client.get("/metrics").text)

    def more(*key: str) -> float:
        return after[key] - before.get(key, 0)

    assert more("tritone:requests_total", "200") == 4
    assert more("tritone:requests_total", "400") == 1
    assert more("tritone:requests_failed_total", "invalid_request") == 2
    assert more("tritone:requests_failed_total", "not_found") == 1
    assert more("tritone:requests_failed_total", "queue_full") == 0
    for name in ("e2e_request_latency", "time_to_first_token", "request_queue_time", "request_read_time"):
        assert more(f"tritone:{name}_seconds_count", "digits") == 4
    assert more("tritone:time_to_first_token_seconds_sum", "digits") > 0
    assert more("tritone:audio_seconds_total", "digits") == pytest.approx(4 * 3.00275)
    assert more("tritone:generation_tokens_total", "digits") == 4 * 7
    assert after["tritone:num_requests_running", "digits"] == 0
    assert after["tritone:num_requests_waiting", "digits"] == 0
    assert 0 <= after["tritone:kv_cache_usage_perc", "digits"] <= 1
    assert after["tritone:engine_up", "digits"] == 1
    assert after["tritone:rtfx", "digits"] > 1


def test_times_of_a_result_go_to_histograms():
    metrics = Metrics({})
    timings = SimpleNamespace(queue=0.1, read=0.2, encode=0.3, decode=0.4, first_token=None, total=1.5)
    metrics.observe("a", SimpleNamespace(timings=timings))
    metrics.observe("a", SimpleNamespace(timings=None))
    metrics.observe("a", SimpleNamespace())
    found = samples(metrics.text().decode())
    assert found["tritone:e2e_request_latency_seconds_sum", "a"] == 1.5
    assert found["tritone:e2e_request_latency_seconds_count", "a"] == 1
    assert found["tritone:request_queue_time_seconds_sum", "a"] == 0.1
    assert ("tritone:time_to_first_token_seconds_sum", "a") not in found


def test_two_servers_of_a_process_count_apart():
    one, other = Metrics({}), Metrics({})
    one.count(200)
    assert ("tritone:requests_total", "200") in samples(one.text().decode())
    assert ("tritone:requests_total", "200") not in samples(other.text().decode())


@pytest.mark.parametrize(
    ("status", "health", "ready"), [("ok", 200, 200), ("degraded", 200, 200), ("failed", 503, 503)]
)
def test_health_and_readiness_are_those_of_the_worst_model(client, monkeypatch, status, health, ready):
    engine = client.models.engines["digits"]
    monkeypatch.setattr(engine, "health", lambda: EngineHealth(status, "of the test"), raising=False)
    answer = client.get("/health")
    assert answer.status_code == health
    assert answer.json() == {
        "status": status,
        "models": {"digits": {"status": status, "reason": "of the test"}},
    }
    assert client.get("/ready").status_code == ready
    assert f'engine_up{{model_name="digits"}} {0 if status == "failed" else 1}' in client.get("/metrics").text


def test_a_server_that_stops_is_not_ready_and_still_healthy(client, monkeypatch):
    monkeypatch.setattr(client.app.state.server, "is_draining", True)
    assert client.get("/ready").json() == {"status": "draining"}
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200


def test_an_id_is_the_clients_where_it_is_sane(client):
    assert client.get("/health", headers={"X-Request-ID": "a-1.b:c"}).headers["x-request-id"] == "a-1.b:c"
    for other in ("", "a b", "a" * 200, "a;b", "\u00e4".encode().decode("latin-1")):
        made = client.get("/health", headers={"X-Request-ID": other.encode("latin-1")}).headers[
            "x-request-id"
        ]
        assert re.fullmatch(r"[0-9a-f]{32}", made)


# Deployment, which no test can run: its files are read as they are.


def test_the_dashboard_shows_metrics_that_there_are(client):
    dashboard = json.loads((DEPLOY / "grafana" / "dashboards" / "tritone.json").read_text())
    shown = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"(?:tritone:|process_)\w+", target["expr"])
    }
    there = {
        sample.name
        for family in text_string_to_metric_families(client.get("/metrics").text)
        for sample in family.samples
    } | {"tritone:requests_total"}  # once there is a request
    assert len(shown) > 10
    assert shown <= there
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_files_of_a_deployment_are_marked_as_not_run_and_parse():
    yaml = pytest.importorskip("yaml")
    files = sorted(path for path in DEPLOY.rglob("*") if path.suffix in (".yaml", ".yml"))
    assert len(files) == 4
    for path in [*files, DEPLOY / "Dockerfile"]:
        assert path.read_text().startswith("# Not run"), path
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert set(services) == {"tritone", "prometheus", "grafana"}
    for service in services.values():
        for volume in service.get("volumes", ()):
            source = volume.partition(":")[0]
            assert not source.startswith("./") or (DEPLOY / source).exists(), source
    scraped = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["static_configs"][0]["targets"] == ["tritone:8000"]


def test_the_container_serves_by_a_command_that_there_is():
    from commands import tritone_invoke

    text = (DEPLOY / "Dockerfile").read_text()
    command = json.loads(re.search(r"^ENTRYPOINT (\[.*\])$", text, re.MULTILINE)[1])
    given = json.loads(re.search(r"^CMD (\[.*\])$", text, re.MULTILINE)[1])
    assert command[:2] == ["tritone", "serve"]
    help_text = tritone_invoke("serve", "--help").stdout
    for option in [part for part in (*command, *given) if part.startswith("--")]:
        assert option in help_text
