"""Examples of `AutoModelForSequenceClassification` and `AutoModelForAudioClassification`."""

import shutil
from typing import Any

import pytest

import tritone


@pytest.mark.parametrize(
    ("factory", "name", "index", "cls"),
    [
        (
            "AutoModelForSequenceClassification",
            "bert",
            "original/bert_model",
            "BertForSequenceClassification",
        ),
        (
            "AutoModelForAudioClassification",
            "wav2vec2",
            "index/wav2vec2",
            "Wav2Vec2ForSequenceClassification",
        ),
    ],
)
def test_the_factories_of_classifiers_with_a_tensorflow_checkpoint(
    factory: str, name: str, index: str, cls: str, run: Any, unpack_tensorflow: Any
) -> None:
    config = unpack_tensorflow(name, index, "bert_tf_checkpoint")
    shutil.copy(config, "tf_model/bert_tf_model_config.json")
    names = run(f"""
from tritone import AutoConfig, {factory}

config = AutoConfig.from_pretrained('./tf_model/bert_tf_model_config.json')
model = {factory}.from_pretrained('./tf_model/bert_tf_checkpoint.ckpt.index', from_tf=True, config=config)
""")
    assert type(names["model"]) is getattr(tritone, cls)
    assert not names["model"].training


def test_a_classifier_of_texts_from_a_configuration(run: Any) -> None:
    names = run("""
from tritone import AutoConfig, AutoModelForSequenceClassification

# Download and load configuration
config = AutoConfig.from_pretrained('bert-base-cased')
model = AutoModelForSequenceClassification.from_config(config)
""")
    assert type(names["model"]) is tritone.BertForSequenceClassification


def test_a_classifier_of_texts_from_a_checkpoint_with_a_field_overridden(run: Any) -> None:
    with pytest.warns(UserWarning, match=r"these are fresh.*classifier\.weight"):
        names = run("""
from tritone import AutoModelForSequenceClassification

# Load pretrained model
model = AutoModelForSequenceClassification.from_pretrained('bert-base-cased')

# Load with updated configuration
model = AutoModelForSequenceClassification.from_pretrained('bert-base-cased', output_attentions=True)
print(model.config.output_attentions)  # True
""")
    assert type(names["model"]) is tritone.BertForSequenceClassification
    assert names["model"].config.output_attentions is True
    assert not names["model"].training


def test_a_bert_is_no_classifier_of_recordings(run: Any) -> None:
    with pytest.raises(ValueError, match="AutoModelForAudioClassification has nothing for a BertConfig"):
        run("""
from tritone import AutoConfig, AutoModelForAudioClassification

# Download configuration from huggingface.co and cache.
config = AutoConfig.from_pretrained('bert-base-cased')
model = AutoModelForAudioClassification.from_config(config)
""")
    for arguments in ("", ", output_attentions=True"):
        with pytest.raises(ValueError, match=r"has model_type 'bert'; supported here: .*wav2vec2"):
            run(f"""
from tritone import AutoConfig, AutoModelForAudioClassification

# Download model and configuration from huggingface.co and cache.
model = AutoModelForAudioClassification.from_pretrained('bert-base-cased'{arguments})
""")
