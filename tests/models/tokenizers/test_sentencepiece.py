"""SentencePiece's model file as it is read, against the sentencepiece library; MBart and MBart50 of it."""

import json
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizer_checks import train_sentencepiece, transformers
from tokenizers import normalizers

from tritone.models.mbart.tokenizer import LANGUAGES, MBart50Tokenizer, MBartTokenizer
from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece

LINES = ["hello world", "Über die Straße", "one two three", "ein Élève", "今天天气很好"] * 20
TEXTS = ["hello world", "  two   ｆｕｌｌ  ", "Über ﬁne № ①", "天天 e\u0301", "", "tab\tand\u3000wide"]


def train(path: Path, **options: object) -> sentencepiece.SentencePieceProcessor:
    content = train_sentencepiece(path, LINES, **({"vocab_size": 60} | options))
    return sentencepiece.SentencePieceProcessor(model_proto=content)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"normalization_rule_name": "identity"},
        {"model_type": "bpe", "bos_id": 0, "pad_id": 1, "eos_id": 2, "unk_id": 3},
        {"user_defined_symbols": ["<a>", "<b>"], "byte_fallback": True, "vocab_size": 330},
    ],
    ids=str,
)
def test_pieces_scores_and_kinds_are_those_of_the_library(tmp_path, options):
    theirs = train(tmp_path / "spiece.model", **options)
    ours = read_sentencepiece(tmp_path / "spiece.model")
    ids = range(len(theirs))
    assert [piece for piece, _ in ours.pieces] == [theirs.id_to_piece(i) for i in ids]
    assert [score for _, score in ours.pieces] == [theirs.get_score(i) for i in ids]
    assert ours.unknown_id == theirs.unk_id()
    for kind, is_kind in ((2, theirs.is_unknown), (3, theirs.is_control), (6, theirs.is_byte)):
        assert [one == kind for one in ours.kinds] == [is_kind(i) for i in ids]
    assert ours.kinds.count(4) == len(options.get("user_defined_symbols", ()))
    assert (ours.charsmap is None) == (options.get("normalization_rule_name") == "identity")


def test_its_rules_normalize_as_the_library_does(tmp_path):
    train(tmp_path / "spiece.model")
    rules = normalizers.Precompiled(read_sentencepiece(tmp_path / "spiece.model").charsmap)
    theirs = sentencepiece.SentencePieceNormalizer(
        model_file=str(tmp_path / "spiece.model"),
        add_dummy_prefix=False,
        escape_whitespaces=False,
        remove_extra_whitespaces=False,
    )
    for text in TEXTS:
        assert rules.normalize_str(text) == theirs.normalize(text)


def test_mbart_loads_the_file_and_saves_what_transformers_loads(tmp_path):
    theirs = train(tmp_path / "sentencepiece.bpe.model")
    pieces = [(theirs.id_to_piece(i), theirs.get_score(i)) for i in range(3, len(theirs))]
    first = [(token, 0.0) for token in ("<s>", "<pad>", "</s>", "<unk>")]
    for kind in (MBartTokenizer, MBart50Tokenizer):
        ours = kind.from_pretrained(tmp_path, src_lang="de_DE")
        vocab = [*first, *pieces, *((code, 0.0) for code in ours.languages), ("<mask>", 0.0)]
        rules = read_sentencepiece(tmp_path / "sentencepiece.bpe.model").charsmap
        more = {"_spm_precompiled_charsmap": rules} if kind is MBart50Tokenizer else {}
        wanted = getattr(transformers, kind.__name__)(vocab, src_lang="de_DE", **more)
        ours.save_pretrained(tmp_path / kind.__name__)
        loaded = (
            ours,
            kind.from_pretrained(tmp_path / kind.__name__),
            getattr(transformers, kind.__name__).from_pretrained(tmp_path / kind.__name__),
        )
        for one in loaded:
            assert one.get_vocab() == wanted.get_vocab()
            for text in TEXTS:
                ids = wanted.encode(text)
                assert one.encode(text) == ids
                assert one.decode(ids, skip_special_tokens=True) == wanted.decode(
                    ids, skip_special_tokens=True
                )


def test_the_file_of_transformers_gives_the_rules_back(tmp_path):
    train(tmp_path / "sentencepiece.bpe.model")
    MBart50Tokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "saved")
    fields = json.loads((tmp_path / "saved" / "tokenizer.json").read_text(encoding="utf-8"))
    assert fields["normalizer"]["normalizers"][0]["type"] == "Precompiled"
    saved = MBart50Tokenizer.from_pretrained(tmp_path / "saved")
    assert (
        saved.tokenize("ｏｎｅ")
        == saved.tokenize("one")
        != MBartTokenizer.from_pretrained(tmp_path).tokenize("ｏｎｅ")
    )
    assert MBartTokenizer.from_pretrained(tmp_path).lang_code_to_id.keys() == set(LANGUAGES)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("model") / "spiece.model"
    train(path)
    return path


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_read_or_refused(model, data):
    content = bytearray(model.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, min(len(content), 900) - 1))] = data.draw(st.integers(0, 255))
    damaged = model.with_name("damaged.model")
    damaged.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)))]))
    try:
        read_sentencepiece(damaged)
    except ValueError as error:
        if "damaged.model is not a SentencePiece model" not in str(error):
            raise
