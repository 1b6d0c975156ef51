"""The server beside OpenAI's published types: every field is read, sent, refused by name, or has a reason."""

import inspect
from typing import get_type_hints

import openai_schema
import pytest
from openai.types import audio
from openai.types.audio import transcription_create_params, translation_create_params
from openai_schema import LACKS, SENT, UNSENT, qualified, rows, schema, tables, written

from tritone.engine.server.fields import BY_NAME, DIARIZED, FIELDS, FORMATS

JSON = {str: "string", int: "integer", float: "number"}


def test_every_field_of_the_published_types_is_accounted_for():
    found = rows()
    assert {row.here for row in found} == {"read", "refused", "sent", "not sent"}
    assert len(found) == len({(row.type, row.field) for row in found})
    assert all(row.note for row in found if row.here in ("refused", "not sent"))


def test_no_reason_is_left_over():
    assert set(LACKS) == {
        (model.__name__, field)
        for model in SENT
        for field in model.model_fields
        if (model.__name__, field) in LACKS
    }


def test_every_published_type_of_transcripts_has_a_place():
    files = [name for name in dir(audio) if name.startswith(("transcription", "translation"))]
    models = {
        model
        for name in files
        for _, model in inspect.getmembers(getattr(audio, name), inspect.isclass)
        if hasattr(model, "model_fields") and model.__module__.startswith(audio.__name__)
    }
    assert {model for model in models if model.model_fields} == {*SENT, *UNSENT} - {openai_schema.Model}


@pytest.mark.parametrize("model", SENT, ids=qualified)
def test_what_openai_requires_is_always_sent_with_its_type(model):
    own = schema(SENT[model])
    for name, field in model.model_fields.items():
        if field.is_required():
            assert name in own["required"], name
            if field.annotation in JSON:
                assert own["properties"][name]["type"] == JSON[field.annotation], name


def test_values_of_fields_are_those_that_openai_has():
    base = transcription_create_params.TranscriptionCreateParamsBase
    formats = openai_schema.literals(base, "response_format")
    assert {*formats} == {*FORMATS, DIARIZED}
    own = translation_create_params.TranslationCreateParams
    assert {*openai_schema.literals(own, "response_format")} == {*FORMATS}
    hints = get_type_hints(base)
    for name in ("timestamp_granularities", "include"):
        (item,) = hints[name].__args__
        assert list(item.__args__) == BY_NAME[name].schema["enum"]


def test_fields_of_our_own_are_marked_as_such():
    published = {row.field for row in rows() if row.here == "read"}
    for field in FIELDS:
        if field.name != "top_k":
            assert field.is_own == (field.name not in published), field.name


def test_the_tables_of_the_documentation_are_these():
    assert written(openai_schema.PAGE.read_text()) == tables(), "run: python tests/support/openai_schema.py"
