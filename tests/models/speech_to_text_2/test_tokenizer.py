"""Speech2Text2's tokenizer against what transformers 4.57.6 made (make_speech_to_text_2_tokenizer.py)."""

import json
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tritone import AutoProcessor, AutoTokenizer
from tritone.models.speech_to_text_2.processor import Speech2Text2Processor
from tritone.models.speech_to_text_2.tokenizer import Speech2Text2Tokenizer
from tritone.models.wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor

GOLDEN = json.loads(
    (Path(__file__).parents[2] / "conformance/golden/speech_to_text_2_tokenizer.json").read_text(
        encoding="utf-8"
    )
)


def write(folder: Path, merges: bool = True) -> Path:
    (folder / "vocab.json").write_text(json.dumps(GOLDEN["vocab"]), encoding="utf-8")
    if merges:
        lines = "".join(f"{left} {right}\n" for left, right in GOLDEN["merges"])
        (folder / "merges.txt").write_text(lines, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp("speech_to_text_2"))


def assert_golden(tokenizer: Speech2Text2Tokenizer, case: dict) -> None:
    assert tokenizer.get_vocab() == case["vocabulary"]
    assert tokenizer.all_special_tokens == case["special"]
    assert [tokenizer.tokenize(text) for text in GOLDEN["texts"]] == case["tokens"]
    assert [tokenizer(text).input_ids for text in GOLDEN["texts"]] == case["ids"]
    assert dict(tokenizer(GOLDEN["texts"], padding=True)) == case["padded"]
    assert tokenizer.batch_decode(GOLDEN["some_ids"]) == case["texts"]
    assert tokenizer.batch_decode(GOLDEN["some_ids"], skip_special_tokens=True) == case["without_special"]


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=lambda case: str(case["options"]))
def test_texts_and_ids_are_those_of_transformers_4(tmp_path, folder, case):
    tokenizer = Speech2Text2Tokenizer.from_pretrained(folder, **case["options"])
    assert_golden(tokenizer, case)
    tokenizer.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_golden(Speech2Text2Tokenizer.from_pretrained(tmp_path), case)
        assert isinstance(AutoTokenizer.from_pretrained(tmp_path), Speech2Text2Tokenizer)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.text(alphabet="derunHKatzeflsSß,", min_size=1, max_size=12), max_size=5))
def test_a_text_of_its_letters_comes_back(folder_of_all, words):
    assert folder_of_all.decode(folder_of_all.encode(" ".join(words))) == " ".join(words)


@pytest.fixture(scope="module")
def folder_of_all(tmp_path_factory) -> Speech2Text2Tokenizer:
    """A vocabulary that has each letter at the end of a word and within it."""
    folder = write(tmp_path_factory.mktemp("all"))
    vocabulary = dict(GOLDEN["vocab"])
    for letter in "derunHKatzeflsSß,":
        for token in (letter, f"{letter}@@"):
            vocabulary.setdefault(token, len(vocabulary))
    for left, right in GOLDEN["merges"]:
        piece = left + right
        token = piece.removesuffix("</w>") if piece.endswith("</w>") else f"{piece}@@"
        vocabulary.setdefault(token, len(vocabulary))
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    return Speech2Text2Tokenizer.from_pretrained(folder)


def test_without_merges_ids_are_decoded_and_text_is_refused(tmp_path):
    tokenizer = Speech2Text2Tokenizer.from_pretrained(write(tmp_path, merges=False))
    assert tokenizer.batch_decode(GOLDEN["some_ids"]) == GOLDEN["cases"][0]["texts"]
    with pytest.raises(ValueError, match=r"has no merges\.txt"):
        tokenizer("der Hund")
    tokenizer.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "merges.txt").exists()


def test_a_broken_file_is_named(tmp_path):
    write(tmp_path)
    (tmp_path / "merges.txt").write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match=r"merges\.txt is not text"):
        Speech2Text2Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text('{"a": "b"}', encoding="utf-8")
    with pytest.raises(ValueError, match=r"vocab\.json must map every token"):
        Speech2Text2Tokenizer.from_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocab\.json"):
        Speech2Text2Tokenizer.from_pretrained(tmp_path)


def test_its_processor_joins_it_with_the_feature_extractor_of_waveforms(tmp_path, folder):
    processor = Speech2Text2Processor(
        Wav2Vec2FeatureExtractor(), Speech2Text2Tokenizer.from_pretrained(folder)
    )
    processor.save_pretrained(tmp_path)
    for loaded in (Speech2Text2Processor.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)):
        assert isinstance(loaded, Speech2Text2Processor)
        assert isinstance(loaded.feature_extractor, Wav2Vec2FeatureExtractor)
        assert loaded.batch_decode(loaded(text=["der Hund"]).input_ids) == ["der Hund"]
