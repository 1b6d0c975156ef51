"""Classes that find the family of a checkpoint, with the arguments that transformers' have."""

import inspect
import json
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers
from factories import OF_TRANSFORMERS, SPEECH_TO_TEXT, edit_json, write_vocabulary

import tritone
from tritone.models.auto import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
)
from tritone.models.registry import FAMILIES, family_of_class, family_of_fields
from tritone.models.speech_to_text.config import Speech2TextConfig
from tritone.models.speech_to_text.feature_extractor import (
    Speech2TextFeatureExtractor,
)
from tritone.models.speech_to_text.model import Speech2TextForConditionalGeneration, Speech2TextModel
from tritone.models.speech_to_text.processor import Speech2TextProcessor
from tritone.models.speech_to_text.tokenizer import Speech2TextTokenizer

SIZES = {**SPEECH_TO_TEXT, "d_model": 8, "input_feat_per_channel": 4}
ALL = [
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoModelForCTC,
    AutoModelForSequenceClassification,
    AutoModelForSpeechSeq2Seq,
    AutoProcessor,
    AutoTokenizer,
]


@pytest.fixture
def folder(tmp_path):
    """A model and nothing to make its input with."""
    Speech2TextForConditionalGeneration(Speech2TextConfig(**SIZES)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary")
    write_vocabulary(folder, [])
    return folder


@pytest.fixture
def processor(vocabulary) -> Speech2TextProcessor:
    return Speech2TextProcessor(
        Speech2TextFeatureExtractor(padding_value=0.5), Speech2TextTokenizer.from_pretrained(vocabulary)
    )


# Models


def test_the_family_is_found_in_the_configuration_and_arguments_are_handed_on(folder):
    model = AutoModelForSpeechSeq2Seq.from_pretrained(folder, dtype="float16", dropout=0.5)
    assert type(model) is Speech2TextForConditionalGeneration
    assert model.dtype == torch.float16
    assert model.config.dropout == 0.5
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(str(folder))) is Speech2TextForConditionalGeneration


def test_a_loaded_model_is_in_evaluation_mode_and_a_fresh_one_in_training_mode_as_in_transformers(folder):
    assert not AutoModelForSpeechSeq2Seq.from_pretrained(folder).training
    assert not transformers.Speech2TextForConditionalGeneration.from_pretrained(folder).training
    assert AutoModelForSpeechSeq2Seq.from_config(Speech2TextConfig(**SIZES)).training
    assert transformers.Speech2TextForConditionalGeneration(transformers.Speech2TextConfig(**SIZES)).training


def test_keyword_arguments_override_the_configuration(folder):
    model, report = AutoModelForSpeechSeq2Seq.from_pretrained(
        folder, output_attentions=True, output_loading_info=True, num_hidden_layers=2
    )
    assert model.config.output_attentions is True
    assert not any(report.values())
    features = torch.randn(1, 9, 4)
    assert model(features, decoder_input_ids=torch.tensor([[2, 5]])).cross_attentions is not None


def test_every_argument_of_transformers_is_taken(folder, tmp_path):
    model = AutoModelForSpeechSeq2Seq.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder),
        cache_dir=tmp_path / "cache",
        **OF_TRANSFORMERS,
        output_loading_info=False,
        token="hf_x",
        low_cpu_mem_usage=True,
        attn_implementation="sdpa",
        use_safetensors=True,
        ignore_mismatched_sizes=False,
        torch_dtype=torch.float32,
        device_map="cpu",
    )
    assert type(model) is Speech2TextForConditionalGeneration
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(
    "auto", [AutoModelForSpeechSeq2Seq, Speech2TextForConditionalGeneration, Speech2TextModel]
)
def test_an_argument_that_there_is_not_is_named(auto, folder):
    problem = "num_beam: neither an argument here nor a field of Speech2TextConfig"
    with pytest.raises(TypeError, match=problem):
        auto.from_pretrained(folder, num_beam=5)
    with pytest.raises(TypeError, match=problem):
        auto.from_pretrained(folder, config=Speech2TextConfig(**SIZES), num_beam=5)
    with pytest.raises(TypeError, match=problem):
        auto.from_config(Speech2TextConfig(**SIZES), num_beam=5)
    with pytest.raises(ValueError, match=r"describes no model: .*positional argument"):
        auto.from_pretrained(folder, "something for the constructor")


@pytest.mark.parametrize("auto", [AutoModelForSpeechSeq2Seq, Speech2TextForConditionalGeneration])
@pytest.mark.parametrize("framework", ["from_tf", "from_flax"])
def test_another_frameworks_weights_have_to_be_there_and_to_be_asked_for(auto, framework, folder):
    other = f"{framework}=True"
    with pytest.raises(FileNotFoundError, match=f"has no weights of .*; leave {framework} out"):
        auto.from_pretrained(folder, **{framework: True})
    with pytest.raises(FileNotFoundError, match=r"ckpt\.index"):
        auto.from_pretrained("./tf_model/model.ckpt.index", config=Speech2TextConfig(), from_tf=True)
    file = "tf_model.h5" if framework == "from_tf" else "flax_model.msgpack"
    (folder / "model.safetensors").rename(folder / file)
    with pytest.raises(FileNotFoundError, match=rf"weights of another framework \({file}\); give {other}"):
        auto.from_pretrained(folder)


@pytest.mark.parametrize("auto", [AutoModelForSpeechSeq2Seq, Speech2TextForConditionalGeneration])
def test_a_configuration_can_be_an_object_a_file_or_a_folder(auto, folder, tmp_path):
    edit_json(folder / "config.json", dropout=0.3)
    shutil.copy(folder / "config.json", tmp_path / "speech_model_config.json")
    edit_json(folder / "config.json", dropout=0.4)
    for config in (tmp_path / "speech_model_config.json", str(tmp_path / "speech_model_config.json")):
        assert auto.from_pretrained(folder, config=config).config.dropout == 0.3
    given = Speech2TextConfig(**SIZES, dropout=0.2)
    model = auto.from_pretrained(folder, config=given, output_attentions=True)
    assert (model.config.dropout, model.config.output_attentions) == (0.2, True)
    assert not given.output_attentions  # the model has a copy
    edit_json(folder / "config.json", model_type="moonshine")
    assert auto.from_pretrained(folder, config=given).config.dropout == 0.2
    theirs = transformers.Speech2TextConfig(**SIZES, dropout=0.1)
    model = auto.from_pretrained(folder, config=theirs)
    assert type(model.config) is Speech2TextConfig
    assert model.config.dropout == 0.1


def test_a_fresh_model_is_made_from_a_configuration():
    torch.manual_seed(0)
    config = Speech2TextConfig(**SIZES, init_std=0.5, dtype="float16")
    model = AutoModelForSpeechSeq2Seq.from_config(config)
    assert type(model) is Speech2TextForConditionalGeneration
    assert model.config == Speech2TextConfig(**SIZES, init_std=0.5, dtype="float32")
    assert model.config is not config
    assert 0.4 < model.model.decoder.layers[0].fc1.weight.std() < 0.6
    assert AutoModelForSpeechSeq2Seq.from_config(config, torch_dtype="auto").dtype == torch.float16
    assert (
        AutoModelForSpeechSeq2Seq.from_config(config, dtype=torch.bfloat16, dropout=0.0).config.dropout == 0.0
    )
    theirs = transformers.Speech2TextConfig(**SIZES)
    assert AutoModelForSpeechSeq2Seq.from_config(theirs).config.d_model == 8
    with pytest.raises(ValueError, match="trust_remote_code=True is refused"):
        AutoModelForSpeechSeq2Seq.from_config(config, trust_remote_code=True)


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        (
            transformers.BertConfig(),
            r"nothing for a BertConfig \(model_type 'bert'\); supported here: Speech2Text",
        ),
        (transformers.MoonshineConfig(), "nothing for a MoonshineConfig"),
        (tritone.models.core.config.PretrainedConfig(), "nothing for a PretrainedConfig"),
        ({"model_type": "speech_to_text"}, "nothing for a dict"),
        (None, "nothing for a NoneType"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_configuration_of_another_family_is_refused_with_those_that_are_here(config, problem, folder):
    with pytest.raises(ValueError, match=problem):
        AutoModelForSpeechSeq2Seq.from_config(config)
    if config is not None:
        with pytest.raises(ValueError, match=problem):
            AutoModelForSpeechSeq2Seq.from_pretrained(folder, config=config)
        with pytest.raises(ValueError, match=r"config is a .*; give a Speech2TextConfig"):
            Speech2TextForConditionalGeneration.from_pretrained(folder, config=config)


# Configurations


def test_a_configuration_is_loaded_or_made_and_unused_arguments_are_returned(folder):
    config = AutoConfig.from_pretrained(folder, dropout=0.5)
    assert type(config) is Speech2TextConfig
    assert (config.dropout, config.d_model) == (0.5, 8)
    config, unused = AutoConfig.from_pretrained(folder, dropout=0.5, foo=False, return_unused_kwargs=True)
    assert (config.dropout, unused) == (0.5, {"foo": False})
    assert AutoConfig.from_pretrained(folder / "config.json") == AutoConfig.from_pretrained(folder)
    assert AutoConfig.for_model("speech_to_text", d_model=8).d_model == 8
    with pytest.raises(
        ValueError, match="AutoConfig has model_type 'moonshine'; supported here: albert, bart, bert, "
    ):
        AutoConfig.for_model("moonshine")


def test_a_configuration_with_code_of_its_own_loads_as_what_it_says_it_is(folder):
    edit_json(folder / "config.json", auto_map={"AutoConfig": "code.Config"})
    (folder / "code.py").write_text("raise SystemExit('this ran')")
    assert type(AutoConfig.from_pretrained(folder)) is Speech2TextConfig
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(folder)) is Speech2TextForConditionalGeneration
    with pytest.raises(
        ValueError, match="trust_remote_code=True is refused: no code out of a checkpoint is run"
    ):
        AutoConfig.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize("name", ["my_speech_to_text_model", "S2T-small-asr", "speech-to-text"])
def test_a_name_decides_where_the_configuration_does_not_say(name, folder, processor):
    processor.save_pretrained(folder)
    for file in folder.glob("*.json"):
        if file.name != "vocab.json":
            edit_json(
                file, model_type=None, processor_class=None, tokenizer_class=None, feature_extractor_type=None
            )
    named = folder.rename(folder.with_name(name))
    assert type(AutoModelForSpeechSeq2Seq.from_pretrained(named)) is Speech2TextForConditionalGeneration
    assert type(AutoConfig.from_pretrained(str(named))) is Speech2TextConfig
    assert type(AutoConfig.from_pretrained(named / "config.json")) is Speech2TextConfig
    assert type(AutoProcessor.from_pretrained(named)) is Speech2TextProcessor
    assert type(AutoTokenizer.from_pretrained(named)) is Speech2TextTokenizer


def test_the_folders_around_a_checkpoint_do_not_decide(folder):
    edit_json(folder / "config.json", model_type=None)
    (folder.parent / "s2t").mkdir()
    moved = folder.rename(folder.parent / "s2t" / "checkpoint-500")
    problem = "has model_type None; supported here: .*speech_to_text.*; write one into its config.json"
    with pytest.raises(ValueError, match=problem):
        AutoModelForSpeechSeq2Seq.from_pretrained(moved)
    assert type(Speech2TextForConditionalGeneration.from_pretrained(moved).config) is Speech2TextConfig


# Feature extractors, tokenizers, processors


def test_a_processor_and_its_parts_are_found_without_a_model(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    assert not (tmp_path / "config.json").exists()
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert type(loaded) is Speech2TextProcessor
    assert loaded.feature_extractor.padding_value == 0.5
    assert AutoProcessor.from_pretrained(tmp_path, padding_value=2.0).feature_extractor.padding_value == 2.0
    assert AutoProcessor.from_pretrained(tmp_path, do_upper_case=True).tokenizer.do_upper_case
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path)
    assert type(extractor) is Speech2TextFeatureExtractor
    assert extractor.padding_value == 0.5
    assert AutoFeatureExtractor.from_pretrained(tmp_path / "preprocessor_config.json").padding_value == 0.5
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, use_fast=True, model_max_length=7)
    assert type(tokenizer) is Speech2TextTokenizer
    assert tokenizer.model_max_length == 7


def test_what_transformers_saved_is_found(processor, vocabulary, tmp_path):
    transformers.Speech2TextProcessor(
        transformers.Speech2TextFeatureExtractor(padding_value=0.25),
        transformers.Speech2TextTokenizer(
            str(vocabulary / "vocab.json"), str(vocabulary / "sentencepiece.bpe.model")
        ),
    ).save_pretrained(tmp_path)
    assert AutoProcessor.from_pretrained(tmp_path).feature_extractor.padding_value == 0.25
    assert AutoFeatureExtractor.from_pretrained(tmp_path).padding_value == 0.25
    assert AutoTokenizer.from_pretrained(tmp_path).encode("one") == processor.tokenizer.encode("one")


@pytest.mark.parametrize("auto", [AutoTokenizer, AutoFeatureExtractor, AutoProcessor])
def test_a_configuration_decides_the_family_if_it_is_given(auto, processor, folder):
    processor.save_pretrained(folder)
    edit_json(folder / "config.json", model_type="moonshine")
    for file in ("preprocessor_config.json", "tokenizer_config.json"):
        edit_json(folder / file, processor_class=None, tokenizer_class=None, feature_extractor_type=None)
    with pytest.raises(ValueError, match=r"model_type 'moonshine'; supported here: .*speech_to_text"):
        auto.from_pretrained(folder)
    assert auto.from_pretrained(folder, config=Speech2TextConfig()) is not None


# All of them


def test_the_public_names_are_these_classes():
    for auto in ALL:
        assert getattr(tritone, auto.__name__) is auto


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.model_type)
def test_every_class_in_the_table_is_there_and_of_its_family(family):
    assert family.load("config").model_type == family.model_type
    for kind in (
        *("speech_seq2seq", "speech_encoder", "text_decoder", "ctc"),
        *("audio_classification", "sequence_classification"),
    ):
        model = family.load(kind)
        assert model is None or model.config_class is family.load("config"), kind
    for kind in ("feature_extractor", "tokenizer", "processor"):
        found = family.load(kind)
        assert found is None or hasattr(found, "from_pretrained"), kind
        assert found is None or family.named(kind, found.__name__) is found
    for path in family.other_tokenizers:
        assert hasattr(family.named("tokenizer", path.rpartition(".")[2]), "from_pretrained")


def test_the_class_that_a_checkpoint_was_saved_as_tells_family_and_kind():
    family, kind = family_of_class("HubertForCTC") or (None, None)
    assert (family.model_type, kind) == ("hubert", "ctc")
    family, kind = family_of_class("BartForSequenceClassification") or (None, None)
    assert (family.model_type, kind) == ("bart", "sequence_classification")
    assert family_of_class("MoonshineForConditionalGeneration") is None


def test_a_model_of_another_kind_is_refused_with_the_way_to_load_it(folder):
    edit_json(folder / "config.json", model_type="wav2vec2")
    with pytest.raises(
        ValueError, match=r"has model_type 'wav2vec2'; .*for wav2vec2 there is AutoModelForCTC; "
    ):
        AutoModelForSpeechSeq2Seq.from_pretrained(folder)
    edit_json(folder / "config.json", model_type="bert")
    with pytest.raises(ValueError, match=r"for bert there is .*; SpeechEncoderDecoderModel\..*, as decoder"):
        AutoModelForCTC.from_pretrained(folder)


def test_families_are_told_apart_by_the_longest_name_that_a_checkpoints_name_holds():
    def found(name: str) -> str:
        return family_of_fields({}, name, name, FAMILIES).model_type

    assert found("s2t-small-librispeech-asr") == "speech_to_text"
    assert found("my-speech_to_text_2-large") == "speech_to_text_2"
    assert found("roberta-base") == "roberta"
    assert found("my-distilbert") == "distilbert"
    assert found("mbart-large") == "mbart"
    assert found("unispeech-sat-base") == "unispeech-sat"


@pytest.mark.parametrize("auto", ALL)
@pytest.mark.parametrize("model_type", ["moonshine", None, 3, {"a": 1}], ids=str)
def test_a_family_that_is_not_here_is_refused_with_those_that_are(auto, model_type, folder):
    edit_json(folder / "config.json", model_type=None)
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**fields, "model_type": model_type}))
    given = re.escape(repr(model_type))
    with pytest.raises(
        ValueError, match=f"model_type {given}; supported here: .*(speech_to_text|wav2vec2|bert)"
    ):
        auto.from_pretrained(folder)


@pytest.mark.parametrize("auto", ALL)
def test_a_name_that_is_no_checkpoint_folder_is_refused(auto, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint folder .*nowhere.*: it does not exist; give"):
        auto.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"has no config\.json"):
        auto.from_pretrained(tmp_path)


def test_a_file_is_no_model(folder):
    for auto in (AutoModelForSpeechSeq2Seq, Speech2TextForConditionalGeneration, AutoTokenizer):
        with pytest.raises(
            FileNotFoundError, match=r"no checkpoint folder .*: it is a file; give the path of a"
        ):
            auto.from_pretrained(folder / "model.safetensors")


@pytest.mark.parametrize("auto", ALL)
def test_an_auto_class_has_no_objects(auto):
    with pytest.raises(EnvironmentError, match=f"{auto.__name__} is made with from_pretrained"):
        auto()


def test_the_arguments_are_documented_at_the_class_that_takes_them():
    signature = inspect.signature(Speech2TextForConditionalGeneration.from_pretrained)
    text = inspect.getdoc(Speech2TextForConditionalGeneration.from_pretrained)
    for name in signature.parameters:
        assert name in text, name
