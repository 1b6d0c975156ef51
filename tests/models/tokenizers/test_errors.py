"""Bad options, calls and files of tokenizers: errors that name them."""

import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_checks import SENTENCEPIECE

from tritone.models.bert.tokenizer import BertTokenizer
from tritone.models.gpt2.tokenizer import GPT2Tokenizer
from tritone.models.mbart.tokenizer import MBartTokenizer
from tritone.models.t5.tokenizer import T5Tokenizer
from tritone.models.xlnet.tokenizer import XLNetTokenizer


@pytest.mark.parametrize(
    ("kind", "error", "message", "options"),
    [
        (BertTokenizer, TypeError, "no option 'do_lowercase'", {"do_lowercase": True}),
        (BertTokenizer, TypeError, "split_special_tokens", {"split_special_tokens": True}),
        (BertTokenizer, ValueError, "padding_side", {"padding_side": "top"}),
        (BertTokenizer, ValueError, "cls_token must be a string", {"cls_token": 2}),
        (BertTokenizer, ValueError, "model_max_length must be a number", {"model_max_length": "long"}),
        (BertTokenizer, ValueError, "does not have the unk_token '<unk>'", {"unk_token": "<unk>"}),
        (T5Tokenizer, ValueError, "extra_ids must be a number of tokens", {"extra_ids": -1}),
        (T5Tokenizer, ValueError, "extra_ids must be a number of tokens", {"extra_ids": 10**9}),
        (
            T5Tokenizer,
            ValueError,
            "extra_ids is 3, and additional_special_tokens holds 1",
            {"extra_ids": 3, "additional_special_tokens": ["<extra_id_0>"]},
        ),
        (XLNetTokenizer, ValueError, "makes no XLNetTokenizer", {"unk_id": 10**6}),
        (XLNetTokenizer, ValueError, "padding_side must be one of", {"padding_side": "top"}),
    ],
)
def test_a_bad_option_is_named(vocabularies, kind, error, message, options):
    with pytest.raises(error, match=message):
        kind(*vocabularies[kind].arguments, **options)


@pytest.mark.parametrize(
    ("message", "inputs", "options"),
    [
        ("got int", (5,), {}),
        ("got NoneType", (["one", None],), {}),
        ("give text, text_target or both", (), {}),
        ("2 texts and 1 second ones", (["a", "b"], "c"), {}),
        ("padding must be", ("one",), {"padding": "widest"}),
        ("truncation must be", ("one",), {"truncation": "middle"}),
        ("set padding=True", (["one", "one two"],), {"return_tensors": "pt"}),
    ],
)
def test_a_bad_call_is_explained(vocabularies, message, inputs, options):
    tokenizer = BertTokenizer(*vocabularies[BertTokenizer].arguments)
    with pytest.raises(ValueError, match=message):
        tokenizer(*inputs, **options)
    with pytest.raises(ValueError, match="-100 is no token id"):
        tokenizer.decode([2, -100])


@pytest.mark.parametrize(
    ("kind", "name", "content", "message"),
    [
        (BertTokenizer, "tokenizer.json", "{", "is not JSON"),
        (BertTokenizer, "tokenizer.json", '{"model": 3}', "a BertTokenizer needs 'WordPiece'"),
        (BertTokenizer, "tokenizer.json", '{"model": {"type": "BPE"}}', "'BPE'; a BertTokenizer needs"),
        (BertTokenizer, "tokenizer.json", '{"model": {"vocab": ["a"]}}', "must map every token"),
        (BertTokenizer, "tokenizer.json", '{"model": {"vocab": {"a": "b"}}}', "must map every token"),
        (BertTokenizer, "tokenizer.json", '{"added_tokens": [3], "model": {"vocab": {}}}', "added_tokens"),
        (BertTokenizer, "vocab.txt", b"\xff\xfe", "cannot be read as a vocabulary"),
        (
            GPT2Tokenizer,
            "tokenizer.json",
            '{"model": {"vocab": {"a": 0}, "merges": ["b c"]}}',
            "no GPT2Tokenizer",
        ),
        (GPT2Tokenizer, "tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": ["b"]}}', "two pieces"),
        (GPT2Tokenizer, "tokenizer.json", '{"model": {"vocab": {"a": 0}, "merges": 3}}', "two pieces"),
        (BertTokenizer, "tokenizer_config.json", '{"cls_token": ["a"]}', "cls_token must be a string"),
        (MBartTokenizer, "tokenizer.json", '{"model": {"vocab": [["a"]]}}', "no pieces with scores as vocab"),
        (MBartTokenizer, "tokenizer.json", '{"model": {"vocab": []}}', "no MBartTokenizer"),
        (MBartTokenizer, "sentencepiece.bpe.model", b"nothing of the kind", "is not a SentencePiece model"),
        (MBartTokenizer, "sentencepiece.bpe.model", b"", "it has no pieces"),
    ],
)
def test_a_broken_file_is_named(tmp_path, kind, name, content, message):
    (tmp_path / "vocab.txt").write_text("[UNK]\n", encoding="utf-8")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=message):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    "kind", [BertTokenizer, GPT2Tokenizer, MBartTokenizer], ids=lambda kind: kind.__name__
)
def test_a_missing_or_too_large_vocabulary_is_named(tmp_path, kind, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"has no tokenizer\.json, nor"):
        kind.from_pretrained(tmp_path)
    monkeypatch.setattr("tritone.models.checkpoints.contents.MAX_JSON_BYTES", 99)
    for name in ("vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model"):
        (tmp_path / name).write_bytes(b" " * 100)
    with pytest.raises(ValueError, match="has 100 bytes, more than the 99 that are read"):
        kind.from_pretrained(tmp_path)


@pytest.mark.parametrize("kind", SENTENCEPIECE, ids=lambda kind: kind.__name__)
def test_a_folder_without_a_vocabulary_is_refused_with_what_is_missing(tmp_path, kind):
    with pytest.raises(OSError, match=r"tokenizer\.json, nor spiece\.model"):
        kind.from_pretrained(tmp_path)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_tokenizer_file_loads_or_is_refused(tmp_path, vocabularies, data):
    kind = data.draw(st.sampled_from([BertTokenizer, GPT2Tokenizer, MBartTokenizer]))
    folder = tmp_path / kind.__name__
    kind(*vocabularies[kind].arguments).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        content = bytearray((folder / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(
                st.sampled_from(b'"{}[],:0 a\xff')
            )
        (folder / name).write_bytes(bytes(content))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tokenizer = kind.from_pretrained(folder)
        except ValueError:
            return
        assert isinstance(tokenizer.encode("one"), list)
