"""Classes that find the classifier of a checkpoint's family, with the arguments that transformers' have."""

from functools import partial

import pytest
import torch
import transformers
from factories import BERT, OF_TRANSFORMERS, SPEECH_TO_TEXT, edit_json, tiny_wav2vec2_config

import tritone
from tritone.models.auto import (
    AutoConfig,
    AutoModelForAudioClassification,
    AutoModelForSequenceClassification,
)
from tritone.models.registry import FAMILIES
from tritone.models.speech_to_text.config import Speech2TextConfig

# The two factories of classifiers, with one family each.
CLASSIFIERS = [
    (AutoModelForAudioClassification, "Hubert", partial(tiny_wav2vec2_config, transformers.HubertConfig)),
    (AutoModelForSequenceClassification, "Bert", partial(transformers.BertConfig, **BERT)),
]
AUDIO_FAMILIES = ["Hubert", "SEW", "SEWD", "UniSpeech", "UniSpeechSat", "Wav2Vec2"]
TEXT_FAMILIES = ["Albert", "Bart", "Bert", "DistilBert", "GPT2", "GPTNeo", "Roberta", "T5", "XLNet"]


@pytest.fixture(params=CLASSIFIERS, ids=lambda case: case[1])
def classifier(request, tmp_path):
    """A factory, its family's name, and a checkpoint that transformers wrote."""
    auto, name, make_config = request.param
    folder = tmp_path / "saved"
    model_class = getattr(transformers, f"{name}ForSequenceClassification")
    model_class(make_config(num_labels=3)).save_pretrained(folder)
    return auto, name, folder


@pytest.mark.parametrize(
    ("auto", "name"),
    [
        *((AutoModelForAudioClassification, name) for name in AUDIO_FAMILIES),
        *((AutoModelForSequenceClassification, name) for name in TEXT_FAMILIES),
    ],
)
def test_each_family_of_the_seeds_has_its_classifier_of_the_same_name(auto, name):
    config = getattr(transformers, f"{name}Config")
    kind = "audio_classification" if name in AUDIO_FAMILIES else "sequence_classification"
    families = {family.model_type: family for family in FAMILIES}
    assert families[config.model_type].class_name(kind) == f"{name}ForSequenceClassification"
    assert getattr(tritone, f"{name}ForSequenceClassification") is families[config.model_type].load(kind)


def test_a_classifier_takes_every_argument_of_transformers(classifier, tmp_path):
    auto, name, folder = classifier
    model, report = auto.from_pretrained(
        folder,
        config=AutoConfig.from_pretrained(folder),
        cache_dir=tmp_path / "cache",
        **OF_TRANSFORMERS,
        output_loading_info=True,
        output_attentions=True,
    )
    assert type(model).__name__ == f"{name}ForSequenceClassification"
    assert not any(report.values())
    assert not model.training
    assert (model.config.output_attentions, model.config.num_labels) == (True, 3)
    state = {key: torch.zeros_like(value) for key, value in model.state_dict().items()}
    zeros = auto.from_pretrained(None, config=model.config, state_dict=state)
    assert not any(parameter.abs().max() for parameter in zeros.parameters())
    with pytest.raises(TypeError, match=r"num_beam: neither an argument here nor a field of"):
        auto.from_pretrained(folder, num_beam=5)


def test_a_fresh_classifier_is_made_from_either_librarys_configuration(classifier):
    auto, name, folder = classifier
    config = AutoConfig.from_pretrained(folder)
    for given in (config, transformers.AutoConfig.from_pretrained(folder)):
        model = auto.from_config(given, output_hidden_states=True)
        assert type(model).__name__ == f"{name}ForSequenceClassification"
        assert model.training
        assert (model.config.output_hidden_states, model.classifier.out_features) == (True, 3)
    assert not config.output_hidden_states
    with pytest.raises(ValueError, match=r"has nothing for a Speech2TextConfig"):
        auto.from_config(Speech2TextConfig(**SPEECH_TO_TEXT))


def test_a_classifiers_folder_name_decides_where_the_configuration_does_not_say(classifier):
    auto, name, folder = classifier
    edit_json(folder / "config.json", model_type=None)
    named = folder.rename(folder.parent / f"my-{name.lower()}-base-cased")
    assert type(auto.from_pretrained(named)).__name__ == f"{name}ForSequenceClassification"


def test_a_name_that_holds_anothers_is_not_taken_for_it(classifier):
    _, _, folder = classifier
    edit_json(folder / "config.json", model_type=None)
    named = folder.rename(folder.parent / "hubert-base")  # which holds "bert"
    with pytest.raises(ValueError, match=r"going by its name, has model_type 'hubert'.*AudioClassification"):
        AutoModelForSequenceClassification.from_pretrained(named)
