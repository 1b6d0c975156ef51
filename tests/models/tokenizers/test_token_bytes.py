"""Bytes of single tokens, which join to the text: byte-level BPE, SentencePiece, WordPiece and the others."""

import json

import pytest
from factories import write_vocabulary
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_checks import LINES
from whisper_tokenizers import english_folder, write_slow_files

from tritone import AutoTokenizer, Speech2Text2Tokenizer, Speech2TextTokenizer, WhisperTokenizer
from tritone.models.tokenizers.pieces import sentencepiece_bytes

TEXT = "The cat sat, naïve Élève: 今天 5 € 🎵!"


def joined(tokenizer, ids) -> str:
    return b"".join(tokenizer.token_bytes(ids)).decode("utf-8", "replace")


def test_the_bytes_of_every_familys_tokens_join_to_the_text(both):
    ours = both[0]
    for line in LINES[:7]:
        ids = ours.encode(line)
        found, text = joined(ours, ids), ours.decode(ids, skip_special_tokens=True)
        if ours.model == "WordPiece":  # whose decoder takes spaces away
            found, text = found.replace(" ", ""), text.replace(" ", "")
        assert found.strip() == text.strip()
        special = [index for index in ids if index in ours.all_special_ids]
        assert ours.token_bytes(special) == [b""] * len(special)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return WhisperTokenizer.from_pretrained(write_slow_files(tmp_path_factory.mktemp("whisper")))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=20))
def test_a_character_of_several_tokens_is_whole_once_their_bytes_are_joined(whisper, text):
    ids = whisper.encode(text, add_special_tokens=False)
    assert b"".join(whisper.token_bytes(ids)) == text.encode()


def test_times_and_special_tokens_of_whisper_have_no_bytes(whisper):
    first = whisper.timestamp_begin
    ids = [*whisper.all_special_ids, first, first + 7, first + 10**5]
    assert whisper.token_bytes(ids) == [b""] * len(ids)
    assert len(whisper.token_bytes(whisper.encode("🎵", add_special_tokens=False))) > 1


def test_the_real_vocabulary_of_tiny_en_gives_back_its_texts():
    tokenizer = AutoTokenizer.from_pretrained(english_folder())
    ids = tokenizer.encode(TEXT)
    assert joined(tokenizer, ids) == TEXT
    cat = tokenizer.encode(" cat", add_special_tokens=False)
    assert tokenizer.token_bytes([*cat, tokenizer.eos_token_id]) == [b" cat", b""]


@pytest.mark.parametrize("upper", [False, True])
def test_those_of_speech_to_text_have_the_spaces_of_sentencepiece(tmp_path, upper):
    write_vocabulary(tmp_path, [])
    files = tmp_path / "vocab.json", tmp_path / "sentencepiece.bpe.model"
    tokenizer = Speech2TextTokenizer(*files, do_upper_case=upper)
    ids = tokenizer.encode("hello world")
    assert tokenizer.unk_token_id not in ids
    assert joined(tokenizer, ids).strip() == tokenizer.decode(ids, skip_special_tokens=True)
    assert sentencepiece_bytes("<0xE2>") == b"\xe2"


def test_a_subword_of_speech_to_text_2_has_its_space_behind_it(tmp_path):
    vocabulary = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "he@@": 4, "llo": 5, "wor@@": 6, "ld": 7}
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(vocabulary))
    tokenizer = Speech2Text2Tokenizer(path)
    ids = [0, 4, 5, 6, 7, 2]
    assert tokenizer.token_bytes(ids) == [b"", b"he", b"llo ", b"wor", b"ld ", b""]
    assert joined(tokenizer, ids).rstrip() == tokenizer.decode(ids, skip_special_tokens=True)
