"""API keys: files and the environment, open paths, and headers of all kinds."""

import asyncio
import json
from statistics import median
from time import perf_counter

import pytest

pytest.importorskip("fastapi")

from tritone.engine.server.access import ApiKeys, RequireKey, read_keys


def ask(path: str, authorization: bytes | None = None, protect_health: bool = False) -> tuple[int, dict]:
    """Status of a request behind the middleware, and the error that it is answered with."""
    answered: list[dict] = []

    async def app(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b'{"error": {}}'})

    async def send(message: dict) -> None:
        answered.append(message)

    headers = [] if authorization is None else [(b"authorization", authorization)]
    scope = {"type": "http", "method": "GET", "path": path, "headers": headers}
    keys = ("secret", "geheim-ä")
    asyncio.run(RequireKey(app, keys, protect_health)(scope, None, send))
    return answered[0]["status"], json.loads(answered[1]["body"])["error"]


@pytest.mark.parametrize(
    "given", [b"Bearer secret", b"bearer secret", b"BEARER  secret ", "Bearer geheim-ä".encode()]
)
def test_a_known_key_is_accepted(given):
    assert ask("/v1/models", given)[0] == 200


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (None, None),
        (b"", None),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Basic c2VjcmV0", None),
        (b"secret", None),
        (b"Bearer secre", "invalid_api_key"),
        (b"Bearer secrets", "invalid_api_key"),
        (b"Bearer SECRET", "invalid_api_key"),
        (b"Bearer secret secret", "invalid_api_key"),
        (b"Bearer \xff\x00\xe4", "invalid_api_key"),
        (b"Bearer " + b"x" * 100_000, "invalid_api_key"),
    ],
)
def test_any_other_header_is_refused(given, code):
    status, error = ask("/v1/models", given)
    assert (status, error["code"], error["type"]) == (401, code, "authentication_error")
    assert "secret" not in error["message"]


def test_monitoring_and_the_page_are_open_and_all_else_is_not():
    for path in ("/health", "/ready", "/metrics", "/", "/page/page.js"):
        assert ask(path)[0] == 200
    for path in ("/v1/models", "/openapi.json", "/health/", "/metrics2", "/anything", "", "//"):
        assert ask(path)[0] == 401
    for path in ("/health", "/ready", "/metrics"):
        assert ask(path, protect_health=True)[0] == 401
        assert ask(path, b"Bearer secret", protect_health=True)[0] == 200
    assert ask("/", protect_health=True)[0] == 200


def test_keys_are_those_of_the_file_and_of_the_environment(tmp_path, monkeypatch):
    path = tmp_path / "keys"
    path.write_text("# comment\n\n one \ntwo# of a team\none\n")
    path.chmod(0o600)
    monkeypatch.delenv("TRITONE_API_KEY", raising=False)
    assert read_keys(None) == ((), None)
    assert read_keys(path) == (("one", "two"), None)
    monkeypatch.setenv("TRITONE_API_KEY", "three\n")
    assert read_keys(None) == (("three",), None)
    assert read_keys(path) == (("three", "one", "two"), None)
    path.chmod(0o640)
    assert "chmod 600" in read_keys(path)[1]


@pytest.mark.parametrize("text", ["", "# none\n", "a b\n", "a\x07b\n"])
def test_a_file_without_a_key_or_with_a_bad_one_is_refused(text, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITONE_API_KEY", raising=False)
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(ValueError, match="key"):
        read_keys(path)
    monkeypatch.setenv("TRITONE_API_KEY", " ")
    with pytest.raises(ValueError, match="TRITONE_API_KEY is empty"):
        read_keys(None)


def test_a_comparison_takes_as_long_for_the_first_key_as_for_none():
    keys = ApiKeys(f"key-{number}" for number in range(2000))

    def seconds(given: bytes) -> float:
        def once() -> float:
            begin = perf_counter()
            keys.accept(given)
            return perf_counter() - begin

        return median(once() for _ in range(25))

    first, none = seconds(b"key-0"), seconds(b"no key")
    assert 0.4 < first / none < 2.5  # a comparison that stopped at the first key would take a thousandth
