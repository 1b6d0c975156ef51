"""The OpenAPI document: a client that draws requests from it finds no fault, and it says what is read."""

from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import just
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tritone.engine.server.fields import BY_NAME, FIELDS

EXAMPLES = 20  # requests of an operation in each mode
OPERATIONS = {
    ("get", "/v1/models"),
    ("get", "/v1/models/{model}"),
    ("post", "/v1/audio/transcriptions"),
    ("post", "/v1/audio/translations"),
    ("post", "/v1/classify"),
}
MODELS = {  # by the endpoint, and True for a recording
    ("/v1/audio/transcriptions", True): "many-languages",
    ("/v1/audio/translations", True): "many-languages",
    ("/v1/classify", True): "digit-classifier",
    ("/v1/classify", False): "text-classifier",
}
NEGATIVE = GenerationMode.NEGATIVE
# A form that fits the schema may still be for another model: an unknown one, or one without times of words.
LEFT_OUT = [positive_data_acceptance]
ROOT = Path(__file__).parents[3]

schemathesis.openapi.format("binary", just((ROOT / "samples/digits/one_digit_8k.wav").read_bytes()))


@pytest.fixture(scope="module")
def document(server):
    return httpx.get(f"{server.url}/openapi.json").json()


@pytest.fixture(scope="module")
def schema(server):
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


@pytest.mark.parametrize("mode", GenerationMode)
@pytest.mark.parametrize(("method", "path"), sorted(OPERATIONS))
def test_requests_drawn_from_the_document_have_the_answers_that_it_describes(schema, method, path, mode):
    if (method, mode) == ("get", NEGATIVE):
        return  # any name of a model is one
    operation = schema[path][method.upper()]
    statuses = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=HealthCheck)
    def check(case):
        if mode is not NEGATIVE and isinstance(case.body, dict):
            case.body["model"] = MODELS[path, "file" in case.body]
            case.body.pop("language", None)
        statuses.add(case.call_and_validate(excluded_checks=LEFT_OUT).status_code)

    check()
    assert 200 not in statuses if mode is NEGATIVE else statuses & {200, 404}


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
            assert described.get("items", described)["description"], name
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
