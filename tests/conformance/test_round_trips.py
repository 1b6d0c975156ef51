"""There and back: what Tritone saves comes back from transformers the same, and the other way round."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import load_file
from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration
from transformers import Speech2TextProcessor as TheirProcessor
from transformers import Speech2TextTokenizer as TheirTokenizer

import tritone

FORMS: dict[str, dict[str, Any]] = {
    "safetensors": {},
    "shards": {"max_shard_size": "20KB"},
    "bin": {"safe_serialization": False},
    "bin shards": {"safe_serialization": False, "max_shard_size": "20KB"},
}
# Fields that a repository of 2021 keeps in config.json, for want of a generation_config.json.
OLD = {"num_beams": 5, "max_length": 60, "early_stopping": True}
TIED, UNTIED = "six-decoder-layers-tied", "odd-width-pad-5"


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def assert_same_weights(one: torch.nn.Module, other: torch.nn.Module) -> None:
    mine, yours = dict(one.named_parameters()), dict(other.named_parameters())
    assert mine.keys() == yours.keys()
    for name, tensor in yours.items():
        assert torch.equal(mine[name], tensor), name
        assert mine[name].dtype == tensor.dtype


def assert_same_model(one: Any, other: Any) -> None:
    assert_same_weights(one, other)
    assert one.config == other.config
    assert one.config.to_dict() == other.config.to_dict()
    assert one.resolve_options(seed=0) == other.resolve_options(seed=0)


@pytest.mark.parametrize("name", [TIED, UNTIED])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("form", FORMS)
def test_a_model_goes_to_transformers_and_back(
    name: str, dtype: str, form: str, checkpoint: Any, tmp_path: Path
) -> None:
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint(name), dtype=dtype)
    model.generation_config.num_beams = 3
    model.save_pretrained(tmp_path / "ours", **FORMS[form])
    files = {path.name for path in (tmp_path / "ours").iterdir()}
    assert any(file.endswith(".index.json") for file in files) == ("shards" in form)
    assert any(file.endswith(".bin") for file in files) == ("bin" in form)

    theirs, report = Speech2TextForConditionalGeneration.from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert report == {
        "missing_keys": set(),
        "unexpected_keys": set(),
        "mismatched_keys": set(),
        "error_msgs": [],
    }
    assert_same_weights(theirs, model)
    options = {"max_shard_size": "20KB"} if "shards" in form else {}
    theirs.save_pretrained(tmp_path / "theirs", **options)
    if "bin" in form:  # which transformers 5 reads and does not write any more
        for path in (tmp_path / "theirs").glob("model*"):
            path.unlink()
        torch.save(theirs.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")

    again = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "theirs", dtype="auto")
    assert_same_model(again, model)
    assert again.resolve_options(seed=0).num_beams == 3
    tied = again.lm_head.weight is again.model.decoder.embed_tokens.weight
    assert tied == (name == TIED)


@pytest.mark.parametrize("name", [TIED, UNTIED])
@pytest.mark.parametrize("form", FORMS)
def test_a_model_of_transformers_comes_here_and_back(
    name: str, form: str, checkpoint: Any, tmp_path: Path
) -> None:
    theirs = Speech2TextForConditionalGeneration.from_pretrained(checkpoint(name))
    tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint(name)).save_pretrained(
        tmp_path, **FORMS[form]
    )
    again = Speech2TextForConditionalGeneration.from_pretrained(tmp_path)
    assert_same_weights(again, theirs)
    assert again.config.to_dict() == {**theirs.config.to_dict(), "_name_or_path": str(tmp_path)}
    defaults = {"_from_model_config", "use_cache", "output_attentions", "output_hidden_states"}
    mine, yours = again.generation_config.to_dict(), theirs.generation_config.to_dict()
    for key in yours.keys() - defaults:  # defaults that transformers writes out and Tritone does not
        assert mine[key] == yours[key], key


def test_a_repository_of_2021_with_its_options_in_config_json_goes_there_and_back(
    checkpoint: Any, tmp_path: Path
) -> None:
    old = shutil.copytree(checkpoint(TIED), tmp_path / "old")
    (old / "generation_config.json").unlink()
    fields = {**json.loads((old / "config.json").read_text()), **OLD, "transformers_version": "4.4.0.dev0"}
    fields["torch_dtype"] = fields.pop("dtype")
    (old / "config.json").write_text(json.dumps(fields))
    state = load_file(old / "model.safetensors")
    tables = {f"model.{side}.embed_positions.weights": torch.zeros(7, 44) for side in ("encoder", "decoder")}
    torch.save(
        {**state, **tables, "lm_head.weight": state["model.decoder.embed_tokens.weight"]},
        old / "pytorch_model.bin",
    )
    (old / "model.safetensors").unlink()

    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(old, dtype="auto")
    options = model.resolve_options(seed=0)
    assert (options.num_beams, options.max_length, options.early_stopping) == (5, 60, True)
    model.save_pretrained(tmp_path / "ours")
    theirs = Speech2TextForConditionalGeneration.from_pretrained(tmp_path / "ours")
    assert {key: getattr(theirs.generation_config, key) for key in OLD} == OLD
    theirs.save_pretrained(tmp_path / "theirs")
    again = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "theirs")
    assert_same_weights(again, model)
    assert again.resolve_options(seed=0) == options


@pytest.mark.parametrize(
    "fields", [{}, {"hidden_size": 48, "my_field": [1]}, {"eos_token_id": [2, 5]}], ids=str
)
def test_a_configuration_goes_to_transformers_and_back(fields: dict[str, Any], tmp_path: Path) -> None:
    config = tritone.Speech2TextConfig(**fields, dropout=0.25, architectures=["Speech2TextModel"])
    config.save_pretrained(tmp_path / "ours")
    Speech2TextConfig.from_pretrained(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = tritone.AutoConfig.from_pretrained(tmp_path / "theirs")
    assert again == config
    assert "transformers_version" not in again.to_dict()


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vocab.json and sentencepiece.bpe.model, with the tokens of the languages."""
    folder = tmp_path_factory.mktemp("vocabulary")
    languages = [f"<lang:{code}>" for code in ("pt", "fr", "ru", "nl", "ro", "it", "es", "de")]
    with (folder / "sentencepiece.bpe.model").open("wb") as model:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(["one two three four five", "six seven eight nine zero"] * 9),
            model_writer=model,
            vocab_size=48,
            model_type="bpe",
            user_defined_symbols=languages,  # transformers takes their ids from here
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            minloglevel=2,
        )
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(folder / "sentencepiece.bpe.model"))
    names = {pieces.id_to_piece(i): i for i in range(len(pieces))}
    (folder / "vocab.json").write_text(json.dumps(names), encoding="utf-8")
    return folder


def assert_same_processor(one: Any, other: Any) -> None:
    for text in ("one two", "three ", "seven <noise> nine", "<lang:it> unknown"):
        ids = one.tokenizer(text).input_ids
        assert ids == other.tokenizer(text).input_ids
        for skip in (True, False):
            assert one.tokenizer.decode(ids, skip_special_tokens=skip) == other.tokenizer.decode(
                ids, skip_special_tokens=skip
            )
    assert one.tokenizer.get_vocab() == other.tokenizer.get_vocab()
    assert one.tokenizer.tgt_lang == other.tokenizer.tgt_lang
    for name in ("sampling_rate", "num_mel_bins", "padding_value", "do_ceptral_normalize", "normalize_vars"):
        assert getattr(one.feature_extractor, name) == getattr(other.feature_extractor, name)


@pytest.mark.parametrize(
    "options",
    [
        {"do_upper_case": True},
        {"lang_codes": "mustc", "tgt_lang": "it", "additional_special_tokens": ["<noise>"]},
    ],
    ids=["one language", "several"],
)
def test_a_processor_goes_to_transformers_and_back(
    options: dict[str, Any], vocabulary: Path, tmp_path: Path
) -> None:
    files = vocabulary / "vocab.json", vocabulary / "sentencepiece.bpe.model"
    extractor = tritone.Speech2TextFeatureExtractor(num_mel_bins=40, padding_value=0.5, normalize_vars=False)
    ours = tritone.Speech2TextProcessor(extractor, tritone.Speech2TextTokenizer(*files, **options))
    ours.save_pretrained(tmp_path / "ours")
    theirs = TheirProcessor.from_pretrained(tmp_path / "ours")
    assert_same_processor(ours, theirs)
    theirs.save_pretrained(tmp_path / "theirs")
    again = tritone.AutoProcessor.from_pretrained(tmp_path / "theirs")
    assert_same_processor(again, ours)
    settings = {**again.feature_extractor.to_dict(), "processor_class": "Speech2TextProcessor"}
    assert settings == ours.feature_extractor.to_dict()


def test_a_tokenizer_of_transformers_comes_here_and_back(vocabulary: Path, tmp_path: Path) -> None:
    files = str(vocabulary / "vocab.json"), str(vocabulary / "sentencepiece.bpe.model")
    theirs = TheirTokenizer(*files, lang_codes="mustc", tgt_lang="es", model_max_length=9)
    theirs.save_pretrained(tmp_path / "theirs")
    ours = tritone.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    again = TheirTokenizer.from_pretrained(tmp_path / "ours")
    assert again("one two three").input_ids == theirs("one two three").input_ids
    assert again.get_vocab() == theirs.get_vocab()
    assert (again.tgt_lang, again.model_max_length) == ("es", 9)
