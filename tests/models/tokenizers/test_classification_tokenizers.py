"""Tokenizers of ALBERT, T5, XLNet and DistilBERT against transformers' of the same vocabularies and files."""

import io
import json
import warnings
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import tritone
from tritone.models.albert.tokenizer import AlbertTokenizer
from tritone.models.distilbert.tokenizer import DistilBertTokenizer
from tritone.models.t5.tokenizer import T5Tokenizer
from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece
from tritone.models.xlnet.tokenizer import XLNetTokenizer

transformers = pytest.importorskip("transformers")

LINES = [
    "The cat, sat on a mat; it isn't flat.",
    "Über die Straße ging ein naïve Élève",
    "今天天气很好",
    "one two three 1,000, four 2,",
    "hello world (hello) . 5 €",
] * 10
TEXTS = [
    "The cat sat.",
    "",
    "  two   spaces ",
    "[CLS] x [MASK] <mask> y</s>z<s> <cls><sep> <eop>",
    "ÜBER straße 今天 ﬁne e\u0301 ｆｕｌｌ №",
    "isn't it ? ``quoted'' '' `` (so) 5 €",
    "<noise> cat <extra_id_0> <extra_id_3>x<extra_id_99>",
    "\x00\t\nabc\u3000wide",
]
SPECIAL = {
    AlbertTokenizer: {
        **{"pad_id": 0, "unk_id": 1, "bos_id": -1, "eos_id": -1},
        "control_symbols": ["[CLS]", "[SEP]"],
        "user_defined_symbols": ["[MASK]", "(", ")"],
    },
    T5Tokenizer: {"pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1},
    XLNetTokenizer: {
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        "control_symbols": ["<cls>", "<sep>", "<pad>", "<mask>", "<eod>", "<eop>"],
        "user_defined_symbols": [".", "€"],
    },
}
CASES = [
    *(
        (AlbertTokenizer, options)
        for options in (
            {},
            {"do_lower_case": False, "keep_accents": True},
            {"add_prefix_space": False, "model_max_length": 11},
            {"additional_special_tokens": ["<noise>"], "mask_token": "<mask>"},
        )
    ),
    *(
        (T5Tokenizer, options)
        for options in (
            {},
            {"extra_ids": 4},
            {"extra_ids": 0},
            {"additional_special_tokens": ["<noise>"], "truncation_side": "left"},
        )
    ),
    *(
        (XLNetTokenizer, options)
        for options in (
            {},
            {"do_lower_case": True, "padding_side": "right"},
            {"additional_special_tokens": ["<noise>"], "unk_id": 1},
        )
    ),
]
IDS = [f"{kind.__name__}-{options}" for kind, options in CASES]
ROLES = ("bos", "eos", "unk", "sep", "pad", "cls", "mask")


def theirs_of(kind: type):
    return getattr(transformers, kind.__name__)


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[type, Path]:
    """A folder with a spiece.model for each family."""
    folders = {}
    for kind, special in SPECIAL.items():
        model, folders[kind] = io.BytesIO(), tmp_path_factory.mktemp(kind.__name__)
        arguments = {"model_type": "unigram", "vocab_size": 110, "hard_vocab_limit": False, **special}
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(LINES), model_writer=model, minloglevel=2, **arguments
        )
        (folders[kind] / "spiece.model").write_bytes(model.getvalue())
    return folders


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()


@pytest.fixture
def reads_models(monkeypatch):
    """Let transformers read SentencePiece files without protobuf: what it takes from them, and how."""

    class Extractor:
        def __init__(self, path: str) -> None:
            self.read = read_sentencepiece(Path(path))
            self.proto = None

        def extract(self, model_type, **kwargs):
            tokens = [
                transformers.AddedToken(piece, normalized=False, special=kind == 3)
                for (piece, _), kind in zip(self.read.pieces, self.read.kinds, strict=True)
                if kind in (3, 4)
            ]
            return kwargs | {
                "unk_id": self.read.unknown_id,
                "vocab": list(self.read.pieces),
                "additional_special_tokens": tokens,
                "_spm_precompiled_charsmap": self.read.charsmap,
            }

    monkeypatch.setattr("transformers.convert_slow_tokenizer.SentencePieceExtractor", Extractor)


def vocabulary(folder: Path) -> tuple:
    read = read_sentencepiece(folder / "spiece.model")
    return list(read.pieces), read.charsmap


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def both(request, folders):
    kind, options = request.param
    pieces, charsmap = vocabulary(folders[kind])
    theirs = theirs_of(kind)(
        list(pieces), _spm_precompiled_charsmap=charsmap, **json.loads(json.dumps(options))
    )
    return kind(pieces, charsmap, **options), theirs


def assert_same(ours, theirs, texts=TEXTS) -> None:
    assert ours.get_vocab() == theirs.get_vocab()
    assert len(ours) == len(theirs)
    assert ours.vocab_size == theirs.vocab_size
    assert sorted(ours.all_special_tokens) == sorted(theirs.all_special_tokens)
    assert ours.padding_side == theirs.padding_side
    for role in ROLES:
        assert getattr(ours, f"{role}_token") == getattr(theirs, f"{role}_token")
        assert getattr(ours, f"{role}_token_id") == getattr(theirs, f"{role}_token_id")
    for text in texts:
        assert ours.tokenize(text) == theirs.tokenize(text)
        assert dict(ours(text)) == dict(theirs(text))
        ids = theirs.encode(text)
        for options in ({}, {"skip_special_tokens": True}):
            assert ours.decode(ids, **options) == theirs.decode(ids, **options)


def test_texts_go_to_the_ids_of_transformers_and_back(both):
    assert_same(*both)
    ours, theirs = both
    assert ours.all_special_tokens == theirs.all_special_tokens


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(
        alphabet=st.one_of(
            st.sampled_from("catmelo Üßéi<s>[]|_天今.,1`'"), st.characters(exclude_categories=["Cs"])
        ),
        max_size=30,
    ),
    ids=st.lists(st.integers(0, 120), max_size=12),
)
def test_any_text_and_any_ids_are_as_in_transformers(both, text, ids):
    ours, theirs = both
    assert ours.encode(text) == theirs.encode(text)
    for options in ({}, {"skip_special_tokens": True}):
        assert ours.decode(ids, **options) == theirs.decode(ids, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"return_token_type_ids": True, "return_special_tokens_mask": True},
        {"add_special_tokens": False, "return_token_type_ids": True},
        {"max_length": 12, "truncation": True, "return_token_type_ids": True},
        {"padding": True, "return_token_type_ids": True},
        {"padding": "max_length", "max_length": 24, "truncation": "longest_first"},
    ],
    ids=str,
)
def test_pairs_are_joined_cut_and_padded_as_in_transformers(both, options):
    ours, theirs = both
    seconds = TEXTS[::-1]
    assert dict(ours(TEXTS, **options)) == dict(theirs(TEXTS, **options))
    assert dict(ours(TEXTS, seconds, **options)) == dict(theirs(TEXTS, seconds, **options))


def test_files_go_from_either_to_the_other(tmp_path, both):
    ours, theirs = both
    ours.save_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            loaded = type(ours).from_pretrained(folder)
        assert_same(loaded, type(theirs).from_pretrained(folder))
        assert_same(loaded, theirs)
        assert loaded.model_max_length == theirs.model_max_length
    assert type(tritone.AutoTokenizer.from_pretrained(tmp_path / "theirs")) is type(ours)


@pytest.mark.parametrize("kind", SPECIAL, ids=lambda kind: kind.__name__)
def test_a_model_s_own_file_loads_as_in_transformers(tmp_path, kind, folders, reads_models):
    ours, theirs = kind.from_pretrained(folders[kind]), theirs_of(kind).from_pretrained(folders[kind])
    assert_same(ours, theirs)
    assert ours.all_special_tokens == theirs.all_special_tokens
    for folder, one in ((tmp_path / "ours", ours), (tmp_path / "theirs", theirs)):
        one.save_pretrained(folder)
        assert_same(kind.from_pretrained(folder), theirs_of(kind).from_pretrained(folder))
        assert_same(kind.from_pretrained(folder), ours)


OLDER = {
    AlbertTokenizer: {
        "do_lower_case": False,
        "remove_space": True,
        "keep_accents": False,
        "additional_special_tokens": ["<noise>"],
        "sp_model_kwargs": {},
    },
    T5Tokenizer: {
        "extra_ids": 5,
        "additional_special_tokens": [f"<extra_id_{i}>" for i in range(5)],
        "model_max_length": 512,
        "sp_model_kwargs": {},
        "legacy": True,
    },
    XLNetTokenizer: {
        "additional_special_tokens": ["<eop>", "<eod>"],
        "mask_token": {"__type": "AddedToken", "content": "<mask>", "lstrip": True, "normalized": True},
        "do_lower_case": True,
        "sp_model_kwargs": {},
    },
}


@pytest.mark.parametrize("kind", SPECIAL, ids=lambda kind: kind.__name__)
def test_an_older_checkpoint_s_options_beside_it_count_as_in_transformers(
    tmp_path, kind, folders, reads_models
):
    (tmp_path / "spiece.model").write_bytes((folders[kind] / "spiece.model").read_bytes())
    fields = OLDER[kind] | {"tokenizer_class": kind.__name__}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(fields))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = kind.from_pretrained(tmp_path)
    assert_same(ours, theirs_of(kind).from_pretrained(tmp_path))


def test_what_a_tokenizer_file_puts_around_albert_s_texts_goes_before_the_family_s_own(tmp_path, folders):
    AlbertTokenizer.from_pretrained(folders[AlbertTokenizer]).save_pretrained(tmp_path)
    fields = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    fields["post_processor"]["single"] = fields["post_processor"]["single"][:2]
    (tmp_path / "tokenizer.json").write_text(json.dumps(fields), encoding="utf-8")
    ours = AlbertTokenizer.from_pretrained(tmp_path)
    assert ours.encode("cat")[-1] != ours.sep_token_id
    assert ours.encode("cat") == transformers.AlbertTokenizer.from_pretrained(tmp_path).encode("cat")


def test_xlnet_s_types_tell_the_texts_and_the_token_at_the_end(folders):
    batch = XLNetTokenizer.from_pretrained(folders[XLNetTokenizer])(
        ["one", "one two"], ["two", "one"], padding=True, return_token_type_ids=True
    )
    assert batch.attention_mask[0][0] == 0
    for types, mask in zip(batch.token_type_ids, batch.attention_mask, strict=True):
        real = [kind for kind, there in zip(types, mask, strict=True) if there]
        assert real == sorted(real)
        assert set(real) == {0, 1, 2}
        assert real.count(2) == 1


def test_distilbert_s_tokenizer_is_bert_s_without_types(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", ".", "e"]
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    ours = DistilBertTokenizer.from_pretrained(tmp_path)
    theirs = transformers.DistilBertTokenizer.from_pretrained(tmp_path)
    texts = ["The cats sat.", "é dog [MASK]", ""]
    assert_same(ours, theirs, texts)
    assert dict(ours(texts, texts[::-1], padding=True)) == dict(theirs(texts, texts[::-1], padding=True))
    assert list(ours(texts)) == ["input_ids", "attention_mask"]
    theirs.save_pretrained(tmp_path / "saved")
    assert_same(DistilBertTokenizer.from_pretrained(tmp_path / "saved"), theirs, texts)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (T5Tokenizer, {"extra_ids": -1}, "extra_ids must be a number of tokens"),
        (T5Tokenizer, {"extra_ids": 10**9}, "extra_ids must be a number of tokens"),
        (
            T5Tokenizer,
            {"extra_ids": 3, "additional_special_tokens": ["<extra_id_0>"]},
            "extra_ids is 3, and additional_special_tokens holds 1",
        ),
        (XLNetTokenizer, {"unk_id": 10**6}, "makes no XLNetTokenizer"),
        (XLNetTokenizer, {"padding_side": "top"}, "padding_side must be one of"),
    ],
)
def test_a_bad_option_is_named(kind, options, message, folders):
    with pytest.raises(ValueError, match=message):
        kind(*vocabulary(folders[kind]), **options)


@pytest.mark.parametrize("kind", SPECIAL, ids=lambda kind: kind.__name__)
def test_a_folder_without_a_vocabulary_is_refused_with_what_is_missing(tmp_path, kind):
    with pytest.raises(OSError, match=r"tokenizer\.json, nor spiece\.model"):
        kind.from_pretrained(tmp_path)
