"""Auto classes: factories that choose the model family by a checkpoint or configuration."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from .checkpoints.contents import read_json
from .checkpoints.convert import foreign_checkpoint, foreign_framework
from .checkpoints.files import Checkpoint, open_checkpoint, single_file
from .core.config import PretrainedConfig, read_config
from .family import Family
from .registry import (
    FAMILIES,
    families_with,
    family_of_checkpoint,
    family_of_config,
    family_of_fields,
    family_of_model_type,
)

Name = str | os.PathLike[str] | Checkpoint

# For each kind of class, the field that names it, and the files to search in transformers' order.
_CLASS_FIELDS = {
    "feature_extractor": ("feature_extractor_type", ("processor_config.json", "preprocessor_config.json")),
    "tokenizer": ("tokenizer_class", ("tokenizer_config.json", "config.json")),
    "processor": (
        "processor_class",
        ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"),
    ),
}

# The part of an encoder-decoder model whose family decides.
_OWNERS = {"feature_extractor": "encoder", "tokenizer": "decoder"}


class _Auto:
    """Base of auto classes, factories with class methods and no instances."""

    _methods = "from_pretrained(name_or_dir)"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"{type(self).__name__} is made with {self._methods}, it has no objects of its own")


class AutoConfig(_Auto):
    """Factory of model configurations, of the family that config.json names."""

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> PretrainedConfig:
        """Make the default configuration of a `model_type`, with `fields` replaced.

        Raises:
            ValueError: an unknown family.
        """
        return family_of_model_type(model_type, FAMILIES, "AutoConfig").load("config")(**fields)

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, **kwargs: Any) -> Any:
        """Load a configuration; arguments as in `PretrainedConfig.from_pretrained`.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: an unknown family.
        """
        if (file := single_file(name_or_dir)) is not None:
            _, rest = open_checkpoint(file.parent, **kwargs)
            family = family_of_fields(read_json(file), str(file), file.parent.resolve().name, FAMILIES)
            return family.load("config").from_pretrained(file, **rest)
        checkpoint, rest = open_checkpoint(name_or_dir, **kwargs)
        return family_of_checkpoint(checkpoint, FAMILIES).load("config").from_pretrained(checkpoint, **rest)


class _AutoModel(_Auto):
    """Base of factories of models, one subclass for each kind of model, such as CTC models."""

    _methods = "from_pretrained(name_or_dir) or from_config(config)"
    _kind: ClassVar[str]

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        """Make a randomly initialized model; arguments as in `PretrainedModel.from_config`.

        Raises:
            ValueError: the configuration of a family without a model of this kind.
        """
        family = family_of_config(config, families_with(cls._kind), cls.__name__)
        return family.load(cls._kind).from_config(config, **kwargs)

    @classmethod
    def from_pretrained(
        cls, name_or_dir: Name | None, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a model in evaluation mode; arguments as in `PretrainedModel.from_pretrained`.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a model of this kind.
        """
        other = {name: kwargs[name] for name in ("from_tf", "from_flax") if name in kwargs}
        name_or_dir = foreign_checkpoint(name_or_dir, foreign_framework(**other))
        families = families_with(cls._kind)
        if isinstance(config, str | os.PathLike):
            fields, _ = read_config(config, **kwargs)
            family = family_of_fields(fields, str(config), os.path.basename(config), families)
        elif config is not None:
            family = family_of_config(config, families, cls.__name__)
        elif name_or_dir is None:
            raise ValueError("without a checkpoint's name, config and state_dict must be given")
        else:
            name_or_dir, kwargs = open_checkpoint(name_or_dir, **kwargs)
            family = family_of_checkpoint(name_or_dir, families)
        return family.load(cls._kind).from_pretrained(name_or_dir, *model_args, config=config, **kwargs)


class AutoModelForSpeechSeq2Seq(_AutoModel):
    """Factory of encoder-decoder speech-to-text models."""

    _kind = "speech_seq2seq"


class AutoModelForCTC(_AutoModel):
    """Factory of speech recognition models with a CTC head."""

    _kind = "ctc"


class AutoModelForAudioClassification(_AutoModel):
    """Factory of audio classification models."""

    _kind = "audio_classification"


class AutoModelForSequenceClassification(_AutoModel):
    """Factory of text classification models."""

    _kind = "sequence_classification"


class _AutoPart(_Auto):
    """Base of the factories of feature extractors, tokenizers and processors."""

    _kind: ClassVar[str]

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, *inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        """Load an object of the class that the checkpoint's files name, or else of its family's class.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub.
            *inputs: positional arguments of a tokenizer's constructor.
            config: configuration whose family's class is loaded, whatever class the files name.
            **kwargs: as in that class's own `from_pretrained`.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a class of this kind.
        """
        kind, families = cls._kind, families_with(cls._kind)
        source: Name = name_or_dir
        if single_file(name_or_dir) is None:
            source, kwargs = open_checkpoint(name_or_dir, **kwargs)
        if config is not None:
            own = getattr(config, _OWNERS[kind], config) if kind in _OWNERS else config
            found = family_of_config(own, families, kind).load(kind)
        elif isinstance(source, Checkpoint):
            found = _by_files(kind, source, families)
        else:
            file = Path(source).expanduser()
            found = _by_files(kind, Checkpoint(os.fspath(file.parent), file.parent), families)
        return found.from_pretrained(source, *inputs, **kwargs)


class AutoFeatureExtractor(_AutoPart):
    """Factory of feature extractors, which convert waveforms to model inputs."""

    _kind = "feature_extractor"


class AutoTokenizer(_AutoPart):
    """Factory of tokenizers, which encode text to token ids and decode them."""

    _kind = "tokenizer"


class AutoProcessor(_AutoPart):
    """Factory of processors, each a feature extractor and a tokenizer in one object."""

    _kind = "processor"


def _by_files(kind: str, checkpoint: Checkpoint, families: Iterable[Family]) -> Any:
    """Class of one kind that the checkpoint's files name, or else that of its configuration's family.

    A tokenizer of an unknown class is read from its tokenizer.json alone, as in transformers.
    """
    names = list(_class_names(kind, checkpoint))
    for name in names:
        for family in families:
            if (found := family.named(kind, name)) is not None:
                return found
    if kind == "tokenizer" and names and checkpoint.find("tokenizer.json") is not None:
        from .tokenizers.tokenizer_json import PreTrainedTokenizerFast

        return PreTrainedTokenizerFast
    return _by_config(kind, checkpoint, families)


def _class_names(kind: str, checkpoint: Checkpoint) -> Iterator[str]:
    """Class names of one kind in the checkpoint's files, without the suffix "Fast"."""
    field, filenames = _CLASS_FIELDS[kind]
    for filename in filenames:
        path = checkpoint.find(filename)
        fields = {} if path is None else read_json(path)
        nested = fields.get(kind)  # as transformers 5 writes a processor's feature extractor
        name = fields.get(field) or (nested.get(field) if isinstance(nested, dict) else None)
        if isinstance(name, str):
            yield name.removesuffix("Fast")


def _by_config(kind: str, checkpoint: Checkpoint, families: Iterable[Family]) -> Any:
    """Class of one kind by the family in config.json, or by that of its encoder or decoder there."""
    fields = read_json(checkpoint.require("config.json"))
    own = fields.get(_OWNERS[kind]) if kind in _OWNERS else None
    fields = own if isinstance(own, dict) else fields
    return family_of_fields(fields, checkpoint.name, checkpoint.own_name, families).load(kind)
