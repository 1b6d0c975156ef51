"""The OpenAPI document: a client that draws requests from it finds no fault, and it says what is read."""

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from tritone.engine.server.fields import BY_NAME, FIELDS

EXAMPLES = 12  # requests of an operation of each kind
OPERATIONS = {
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("post", "/v1/audio/transcriptions"),
    ("post", "/v1/audio/translations"),
    ("post", "/v1/classify"),
}
# Drawn bytes are no recording, so that a form that fits the schema is refused all the same.
LEFT_OUT = [checks.positive_data_acceptance]


@pytest.fixture(scope="module")
def document(server):
    return httpx.get(f"{server.url}/openapi.json").json()


@pytest.fixture
def schema(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


lazy = schemathesis.pytest.from_fixture("schema")


@lazy.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
def test_requests_drawn_from_the_document_have_the_answers_that_it_describes(case):
    case.call_and_validate(excluded_checks=LEFT_OUT)


def test_the_document_has_all_operations_of_the_api(document):
    found = {(method, path) for path, item in document["paths"].items() for method in item}
    assert {one for one in found if one[1].startswith("/v1/")} == OPERATIONS


def test_forms_are_described_by_the_fields_that_are_read(document):
    for path in ("/v1/audio/transcriptions", "/v1/audio/translations", "/v1/classify"):
        content = document["paths"][path]["post"]["requestBody"]["content"]
        form = content["multipart/form-data"]["schema"]
        expected = {"file", *(field.shown for field in FIELDS if path in field.of)}
        assert set(form["properties"]) == expected
        for name, described in form["properties"].items():
            assert described["description"] or described["items"]["description"], name
    assert len(BY_NAME) == len(FIELDS)


def test_every_reference_of_the_document_is_there(document):
    names = set(document["components"]["schemas"])

    def walk(node):
        if isinstance(node, dict):
            if "$ref" in node:
                assert node["$ref"].rpartition("/")[2] in names
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
