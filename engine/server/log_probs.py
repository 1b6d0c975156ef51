"""Log-probabilities of a transcription's tokens, as OpenAI's API lists them."""

from typing import Any

from ..outputs import Transcription
from .models import ServedModel


def log_probs(result: Transcription, model: ServedModel) -> list[dict[str, Any]]:
    """JSON objects of the tokens of a text: token, bytes and log-probability."""
    raise NotImplementedError
