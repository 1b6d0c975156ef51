"""Classes that find out from a checkpoint which family it is."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .configuration import PretrainedConfig, read_config
from .files import Checkpoint, open_checkpoint, read_json, single_file
from .pretrained import PretrainedModel, refuse_other_frameworks
from .speech_to_text import Speech2TextForConditionalGeneration
from .speech_to_text_config import Speech2TextConfig
from .speech_to_text_processing import Speech2TextFeatureExtractor, Speech2TextProcessor
from .speech_to_text_tokenization import Speech2TextTokenizer

Name = str | os.PathLike[str] | Checkpoint


@dataclass(frozen=True)
class Family:
    """The classes of one `model_type`; None where it has none of a kind.

    Args:
        config: its configuration, which names the `model_type`.
        names: what a checkpoint's name holds where its configuration does not say the `model_type`.
    """

    config: type[PretrainedConfig]
    names: tuple[str, ...]
    speech_seq2seq: type[PretrainedModel] | None = None
    feature_extractor: Any = None
    tokenizer: Any = None
    processor: Any = None

    @property
    def model_type(self) -> str:
        """As in `config.json`."""
        return self.config.model_type


FAMILIES = (
    Family(
        Speech2TextConfig,
        ("speech_to_text", "speech-to-text", "s2t"),
        speech_seq2seq=Speech2TextForConditionalGeneration,
        feature_extractor=Speech2TextFeatureExtractor,
        tokenizer=Speech2TextTokenizer,
        processor=Speech2TextProcessor,
    ),
)


# Where files name the class of what they are for: its kind, the field, the files in transformers' order.
_CLASS_FIELDS = {
    "feature_extractor": ("feature_extractor_type", ("processor_config.json", "preprocessor_config.json")),
    "tokenizer": ("tokenizer_class", ("tokenizer_config.json",)),
    "processor": (
        "processor_class",
        ("processor_config.json", "preprocessor_config.json", "tokenizer_config.json"),
    ),
}


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
        return _by_model_type(model_type, FAMILIES, "AutoConfig").config(**fields)

    @classmethod
    def from_pretrained(cls, name_or_dir: Name, **kwargs: Any) -> Any:
        """Load a configuration; arguments as in `PretrainedConfig.from_pretrained`.

        Raises:
            OSError: no such checkpoint or file, or the Hub does not answer.
            ValueError: a family that is not here.
        """
        if (file := single_file(name_or_dir)) is not None:
            _, rest = open_checkpoint(file.parent, **kwargs)
            family = _of_fields(read_json(file), str(file), file.parent.resolve().name, FAMILIES)
            return family.config.from_pretrained(file, **rest)
        checkpoint, rest = open_checkpoint(name_or_dir, **kwargs)
        return _of_checkpoint(checkpoint, FAMILIES).config.from_pretrained(checkpoint, **rest)


class AutoModelForSpeechSeq2Seq(_Auto):
    """The speech-to-text model of whatever family a checkpoint is."""

    _ways = "from_pretrained(name_or_dir) or from_config(config)"

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Any:
        """A model with fresh weights; arguments as in `PretrainedModel.from_config`.

        Raises:
            ValueError: the configuration of a family without a speech-to-text model here.
        """
        return _model(_of_config(config, _with("speech_seq2seq"), cls.__name__)).from_config(config, **kwargs)

    @classmethod
    def from_pretrained(
        cls, name_or_dir: Name | None, *model_args: Any, config: Any = None, **kwargs: Any
    ) -> Any:
        """Load a model in evaluation mode; arguments as in `PretrainedModel.from_pretrained`.

        Raises:
            OSError: no such checkpoint, or the Hub does not answer.
            ValueError: a family without a speech-to-text model here.
        """
        other = {name: kwargs[name] for name in ("from_tf", "from_flax") if name in kwargs}
        refuse_other_frameworks(**other)
        families = _with("speech_seq2seq")
        if isinstance(config, str | os.PathLike):
            fields, _ = read_config(config, **kwargs)
            family = _of_fields(fields, str(config), os.path.basename(config), families)
        elif config is not None:
            family = _of_config(config, families, cls.__name__)
        elif name_or_dir is None:
            raise ValueError("without a checkpoint's name, config and state_dict must be given")
        else:
            name_or_dir, kwargs = open_checkpoint(name_or_dir, **kwargs)
            family = _of_checkpoint(name_or_dir, families)
        return _model(family).from_pretrained(name_or_dir, *model_args, config=config, **kwargs)


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
    families = _with(kind)
    source: Name = name_or_dir
    if single_file(name_or_dir) is None:
        source, kwargs = open_checkpoint(name_or_dir, **kwargs)
    if config is not None:
        family = _of_config(config, families, kind)
    elif isinstance(source, Checkpoint):
        family = _by_class_name(kind, source, families) or _of_checkpoint(source, families)
    else:
        file = Path(source).expanduser()
        folder = Checkpoint(os.fspath(file.parent), file.parent)
        family = _by_class_name(kind, folder, families) or _of_checkpoint(folder, families)
    return getattr(family, kind).from_pretrained(source, *inputs, **kwargs)


def _by_class_name(kind: str, checkpoint: Checkpoint, families: Iterable[Family]) -> Family | None:
    """The family whose class of this kind the checkpoint's files name."""
    field, filenames = _CLASS_FIELDS[kind]
    for filename in filenames:
        path = checkpoint.find(filename)
        fields = {} if path is None else read_json(path)
        nested = fields.get(kind)  # where transformers 5 keeps a processor's feature extractor
        name = fields.get(field) or (nested.get(field) if isinstance(nested, dict) else None)
        for family in families:
            if isinstance(name, str) and name.removesuffix("Fast") == getattr(family, kind).__name__:
                return family
    return None


def _of_checkpoint(checkpoint: Checkpoint, families: Iterable[Family]) -> Family:
    fields = read_json(checkpoint.require("config.json"))
    return _of_fields(fields, checkpoint.name, checkpoint.own_name, families)


def _of_fields(fields: dict[str, Any], where: str, own_name: str, families: Iterable[Family]) -> Family:
    """The family that a `config.json` is of; the checkpoint's name decides where it does not say."""
    model_type = fields.get("model_type")
    if isinstance(model_type, str):
        note = "; its own code (auto_map) is not run" if "auto_map" in fields else ""
        return _by_model_type(model_type, families, where, note)
    for family in families:
        if any(name in own_name.lower() for name in family.names):
            return family
    note = "; write one into its config.json, or call the class of its family"
    return _by_model_type(model_type, families, where, note)


def _by_model_type(model_type: Any, families: Iterable[Family], where: str, note: str = "") -> Family:
    known = {family.model_type: family for family in families}
    if model_type not in known:
        raise ValueError(
            f"{where} has model_type {model_type!r}; supported here: {', '.join(sorted(known))}{note}"
        )
    return known[model_type]


def _of_config(config: Any, families: Iterable[Family], who: str) -> Family:
    """The family of a configuration object, by its class or its `model_type`."""
    given = getattr(config, "model_type", None)
    for family in families:
        if isinstance(config, family.config) or (isinstance(given, str) and given == family.model_type):
            return family
    known = ", ".join(family.config.__name__ for family in families)
    raise ValueError(
        f"{who} has nothing for a {type(config).__name__} (model_type {given!r}); supported here: {known}"
    )


def _with(kind: str) -> tuple[Family, ...]:
    return tuple(family for family in FAMILIES if getattr(family, kind) is not None)


def _model(family: Family) -> Any:
    return family.speech_seq2seq
