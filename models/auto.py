"""Classes that find out from a checkpoint which family it is."""

import os
from typing import Any

from .files import read_json, resolve_folder
from .pretrained import PretrainedModel
from .speech_to_text import Speech2TextForConditionalGeneration
from .speech_to_text_processing import Speech2TextProcessor

_SPEECH_SEQ2SEQ: dict[str, type[PretrainedModel]] = {"speech_to_text": Speech2TextForConditionalGeneration}
_PROCESSORS = {"speech_to_text": Speech2TextProcessor}


class AutoModelForSpeechSeq2Seq:
    """The speech-to-text model of whatever family a checkpoint is."""

    def __init__(self) -> None:
        raise OSError(f"{type(self).__name__} is made with from_pretrained(name_or_dir)")

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load a model in evaluation mode; keyword arguments as in `PretrainedModel.from_pretrained`.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: a family without a speech-to-text model here.
        """
        return _family(name_or_dir, _SPEECH_SEQ2SEQ).from_pretrained(name_or_dir, **kwargs)


class AutoProcessor:
    """The processor of whatever family a checkpoint is."""

    def __init__(self) -> None:
        raise OSError(f"{type(self).__name__} is made with from_pretrained(name_or_dir)")

    @classmethod
    def from_pretrained(cls, name_or_dir: str | os.PathLike[str], **kwargs: Any) -> Any:
        """Load feature extractor and tokenizer.

        Raises:
            FileNotFoundError: no such checkpoint.
            ValueError: a family without a processor here.
        """
        return _family(name_or_dir, _PROCESSORS).from_pretrained(name_or_dir, **kwargs)


def _family(name_or_dir: str | os.PathLike[str], known: dict[str, Any]) -> Any:
    model_type = read_json(resolve_folder(name_or_dir) / "config.json").get("model_type")
    if model_type not in known:
        raise ValueError(
            f"{name_or_dir} has model_type {model_type!r}; supported here: {', '.join(sorted(known))}"
        )
    return known[model_type]
