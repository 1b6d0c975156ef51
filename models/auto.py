"""Classes that find out from a checkpoint which family it is."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

from .checkpoints.convert import foreign_checkpoint, foreign_framework
from .checkpoints.files import Checkpoint, open_checkpoint, read_json, single_file
from .core.config import PretrainedConfig, read_config
from .registry import (
    FAMILIES,
    Family,
    families_with,
    family_of_checkpoint,
    family_of_config,
    family_of_fields,
    family_of_model_type,
)

Name = str | os.PathLike[str] | Checkpoint

# Where files name the class of what they are for: its kind, the field, the files in transformers' order.
_CLASS_FIELDS = {
    "feature_extractor": ("feature_extractor_type", ("processor_config.json", "preprocessor_config.json")),
    "tokenizer": ("tokenizer_class", ("tokenizer_config.json", "config.json")),
    "processor": (
        "processor_class",
        ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"),
    ),
}

# Whose family decides, in a model made of two.
_OWNERS = {"feature_extractor": "encoder", "tokenizer": "decoder"}


class _Auto:
    """Made with class methods alone."""

    _ways = "from_pretrained(name_or_dir)"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise OSError(f"{type(self).__name__} is made with {self._ways}, it has no objects of its own")


class AutoConfig(_Auto):
    """The configuration of whatever family a checkpoint is."""

    @staticmethod
    def for_model(model_type: str, **fields: Any) -> PretrainedConfig:
        """The default configuration of a `model_type`, some fields given.

        Raises:
            ValueError: a family that is not here.
        """
        return family_of_model_type(model_type, FAMILIES, "AutoConfig").load("config")(**fields)

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, **kwargs: Any) -> Any:
        """Load a configuration; arguments as in `PretrainedConfig.from_pretrained`.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: a family that is not here.
        """
        if (file := single_file(name_or_dir)) is not None:
            _, rest = open_checkpoint(file.parent, **kwargs)
            family = family_of_fields(read_json(file), str(file), file.parent.resolve().name, FAMILIES)
            return family.load("config").from_pretrained(file, **rest)
        checkpoint, rest = open_checkpoint(name_or_dir, **kwargs)
        return family_of_checkpoint(checkpoint, FAMILIES).load("config").from_pretrained(checkpoint, **rest)


class _AutoModel(_Auto):
    """A model of one kind."""

    _ways = "from_pretrained(name_or_dir) or from_config(config)"
    _kind: ClassVar[str]

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        """A model with fresh weights; arguments as in `PretrainedModel.from_config`.

        Raises:
            ValueError: the configuration of a family without such a model here.
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
            ValueError: a family without such a model here.
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
    """The speech-to-text model of whatever family a checkpoint is."""

    _kind = "speech_seq2seq"


class AutoModelForCTC(_AutoModel):
    """The CTC model of whatever family a checkpoint is."""

    _kind = "ctc"


class AutoModelForAudioClassification(_AutoModel):
    """The model of whatever family a checkpoint is that gives recordings labels."""

    _kind = "audio_classification"


class AutoModelForSequenceClassification(_AutoModel):
    """The model of whatever family a checkpoint is that gives texts labels."""

    _kind = "sequence_classification"


class AutoFeatureExtractor(_Auto):
    """The feature extractor of whatever family a checkpoint is."""

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, *, config: Any = None, **kwargs: Any) -> Any:
        """Load a feature extractor; arguments as in the family's own `from_pretrained`.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub.
            config: decides the family, instead of the checkpoint's files.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a feature extractor here.
        """
        return _part("feature_extractor", name_or_dir, config, kwargs)


class AutoTokenizer(_Auto):
    """The tokenizer of whatever family a checkpoint is."""

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, *inputs: Any, config: Any = None, **kwargs: Any) -> Any:
        """Load a tokenizer; arguments as in the family's own `from_pretrained`.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub.
            config: decides the family, instead of the checkpoint's files.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a tokenizer here.
        """
        return _part("tokenizer", name_or_dir, config, kwargs, *inputs)


class AutoProcessor(_Auto):
    """The processor of whatever family a checkpoint is."""

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, *, config: Any = None, **kwargs: Any) -> Any:
        """Load feature extractor and tokenizer; arguments as in the family's own `from_pretrained`.

        Args:
            name_or_dir: a folder or the id of a repository on the Hub.
            config: decides the family, instead of the checkpoint's files.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a processor here.
        """
        return _part("processor", name_or_dir, config, kwargs)


def _part(kind: str, name_or_dir: Name, config: Any, kwargs: dict[str, Any], *inputs: Any) -> Any:
    """Load a feature extractor, tokenizer or processor.

    Its files name its class; where they do not, the configuration decides, as for a model.
    """
    families = families_with(kind)
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


def _by_files(kind: str, checkpoint: Checkpoint, families: Iterable[Family]) -> Any:
    """The class of this kind that the checkpoint's files name, or else that of its configuration's family.

    A tokenizer whose class is nobody's is its tokenizer.json as it is, as in transformers.
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
    """The classes of this kind that the checkpoint's files name."""
    field, filenames = _CLASS_FIELDS[kind]
    for filename in filenames:
        path = checkpoint.find(filename)
        fields = {} if path is None else read_json(path)
        nested = fields.get(kind)  # where transformers 5 keeps a processor's feature extractor
        name = fields.get(field) or (nested.get(field) if isinstance(nested, dict) else None)
        if isinstance(name, str):
            yield name.removesuffix("Fast")


def _by_config(kind: str, checkpoint: Checkpoint, families: Iterable[Family]) -> Any:
    """The class of this kind of the family that the checkpoint, or its encoder or decoder, is of."""
    fields = read_json(checkpoint.require("config.json"))
    own = fields.get(_OWNERS[kind]) if kind in _OWNERS else None
    fields = own if isinstance(own, dict) else fields
    return family_of_fields(fields, checkpoint.name, checkpoint.own_name, families).load(kind)
