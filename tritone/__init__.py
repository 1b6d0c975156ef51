"""Tritone: padding-free, continuously batched speech inference in Python and Triton.

The names below are the public API. They are loaded on first use (PEP 562), so that
`import tritone` and `tritone --help` never import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Engine": "engine.engine",
    "AutoConfig": "models.auto",
    "AutoFeatureExtractor": "models.auto",
    "AutoModelForSpeechSeq2Seq": "models.auto",
    "AutoProcessor": "models.auto",
    "AutoTokenizer": "models.auto",
    "GenerationConfig": "models.generation_config",
    "Speech2TextConfig": "models.speech_to_text",
    "Speech2TextModel": "models.speech_to_text",
    "Speech2TextForConditionalGeneration": "models.speech_to_text",
    "Speech2TextFeatureExtractor": "models.speech_to_text_processing",
    "Speech2TextTokenizer": "models.speech_to_text_tokenization",
    "Speech2TextProcessor": "models.speech_to_text_processing",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(
            f"module 'tritone' has no attribute {name!r}; it has: {', '.join(sorted(_HOMES))}"
        )
    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


if TYPE_CHECKING:
    from .engine.engine import Engine as Engine
    from .models.auto import AutoConfig as AutoConfig
    from .models.auto import AutoFeatureExtractor as AutoFeatureExtractor
    from .models.auto import AutoModelForSpeechSeq2Seq as AutoModelForSpeechSeq2Seq
    from .models.auto import AutoProcessor as AutoProcessor
    from .models.auto import AutoTokenizer as AutoTokenizer
    from .models.generation_config import GenerationConfig as GenerationConfig
    from .models.speech_to_text import Speech2TextConfig as Speech2TextConfig
    from .models.speech_to_text import (
        Speech2TextForConditionalGeneration as Speech2TextForConditionalGeneration,
    )
    from .models.speech_to_text import Speech2TextModel as Speech2TextModel
    from .models.speech_to_text_processing import Speech2TextFeatureExtractor as Speech2TextFeatureExtractor
    from .models.speech_to_text_processing import Speech2TextProcessor as Speech2TextProcessor
    from .models.speech_to_text_tokenization import Speech2TextTokenizer as Speech2TextTokenizer
