"""Log-probabilities of a transcription's tokens, as OpenAI's API lists them."""

from typing import Any

from ..outputs import Transcription
from .models import ServedModel


def log_probs(result: Transcription, model: ServedModel) -> list[dict[str, Any]]:
    """JSON objects of the tokens of a text; special tokens and Whisper's times are left out.

    The bytes join to the text, but for spaces at its ends. A token that is a part of a character has the
    replacement character for it, but its own bytes.
    """
    values = result.token_log_probs or ()
    generated = result.token_ids[len(result.token_ids) - len(values) :]
    return [
        {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": value}
        for piece, value in zip(model.tokenizer.token_bytes(generated), values, strict=True)
        if piece
    ]
