"""Classification over HTTP, of recordings and texts."""

import json
from pathlib import Path

import httpx
import pytest

from tritone.engine.server.classify import MAX_INPUTS, MAX_JSON_BYTES

ROOT = Path(__file__).parents[3]
DIGIT = ROOT / "samples/digits/one_digit_8k.wav"
TEXTS = "text-classifier"


def classify(server, **body):
    headers = {"content-type": "application/json"}
    return httpx.post(f"{server.url}/v1/classify", content=json.dumps(body), headers=headers, timeout=60)


def expected(server, text, **options):
    return server.engines[TEXTS].engine.submit(text, top_k=None, **options).result().labels


def test_a_recording_has_its_labels(server):
    answer = server.post("/v1/classify", DIGIT, model="digit-classifier", top_k="2").json()
    labels = server.engines["digit-classifier"].engine.submit(DIGIT, top_k=None).result().labels
    (item,) = answer["data"]
    assert item["labels"] == [{"label": one.label, "score": one.score} for one in labels[:2]]
    assert (item["index"], item["label"], item["num_classes"]) == (0, labels[0].label, 10)
    names = server.engines["digit-classifier"].engine.model.config.id2label
    assert dict(zip(names.values(), item["probs"], strict=True)) == {one.label: one.score for one in labels}
    assert (answer["object"], answer["model"]) == ("list", "digit-classifier")
    assert answer["usage"] == {"type": "duration", "seconds": pytest.approx(0.6, abs=0.4)}


@pytest.mark.parametrize("text", ["one two", ["one two", "three"], [["one", "two"], ["two", "one"]]])
def test_texts_and_pairs_have_their_labels_in_order(server, text):
    answer = classify(server, model=TEXTS, input=text, top_k=1).json()
    texts = [text] if isinstance(text, str) else text
    assert [item["index"] for item in answer["data"]] == list(range(len(texts)))
    for item, one in zip(answer["data"], texts, strict=True):
        best = expected(server, one if isinstance(one, str) else tuple(one))[0]
        assert item["labels"] == [{"label": best.label, "score": best.score}]
        assert sum(item["probs"]) == pytest.approx(1)
    assert "usage" not in answer


def test_a_long_text_is_refused_unless_it_is_to_be_cut(server):
    long = "one two " * 40
    refused = classify(server, model=TEXTS, input=["one", long])
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "input")
    cut = classify(server, model=TEXTS, input=long, truncate=True).json()
    assert cut["data"][0]["label"] == expected(server, long, truncate=True)[0].label


def test_null_and_absence_of_top_k_mean_all_and_five_labels(server):
    answer = server.post("/v1/classify", DIGIT, model="digit-classifier").json()
    assert len(answer["data"][0]["labels"]) == 5
    answer = classify(server, model=TEXTS, input="one", top_k=None).json()
    assert len(answer["data"][0]["labels"]) == 3


REFUSED = [
    ({}, "input"),
    ({"input": []}, "input"),
    ({"input": 7}, "input"),
    ({"input": ["one", 7]}, "input[1]"),
    ({"input": [["one", "two", "three"]]}, "input[0]"),
    ({"input": ["a"] * (MAX_INPUTS + 1)}, "input"),
    ({"input": "\ud800"}, "input"),
    ({"input": "one", "top_k": 0}, "top_k"),
    ({"input": "one", "top_k": True}, "top_k"),
    ({"input": "one", "truncate": "yes"}, "truncate"),
    ({"input": "one", "softmax": True}, "softmax"),
    ({"input": "one", "\ud800": 1}, "\ufffd"),
    ({"input": "one", "model": 7}, "model"),
    ({"input": "one", "model": "digits"}, "model"),
    ({"input": "one", "model": "digit-classifier"}, "input"),
]


@pytest.mark.parametrize(("body", "param"), REFUSED)
def test_a_field_of_json_is_refused_by_its_name(server, body, param):
    answer = classify(server, **{"model": TEXTS} | body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


def test_a_form_with_a_recording_is_not_for_a_classifier_of_texts(server):
    answer = server.post("/v1/classify", DIGIT, model=TEXTS)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    answer = server.post("/v1/classify", None, model="digit-classifier")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "file")
    answer = server.post("/v1/classify", DIGIT, model="digit-classifier", language="en")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "unknown_parameter")


@pytest.mark.parametrize("body", ["", "{", "[1]", "null", "[" * 100_000, '{"input": ' + "9" * 5000 + "}"])
def test_a_body_that_is_no_json_object_is_refused(server, body):
    headers = {"content-type": "application/json; charset=utf-8"}
    answer = httpx.post(f"{server.url}/v1/classify", content=body, headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")


def test_a_body_that_is_too_large_is_refused(server):
    answer = classify(server, input="a" * MAX_JSON_BYTES)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "body_too_large")
