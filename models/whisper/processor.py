"""Processor of Whisper."""

from typing import Any

from ..processors.processor import SpeechProcessor
from .tokenizer import WhisperTokenizer


class WhisperProcessor(SpeechProcessor):
    """Whisper's feature extractor and tokenizer in one, for features, labels, prompts and decoded text."""

    tokenizer_class = WhisperTokenizer

    def get_decoder_prompt_ids(
        self, task: str | None = None, language: str | None = None, no_timestamps: bool = True
    ) -> list[tuple[int, int]]:
        """Set the prefix of the tokenizer, and return pairs (position, token id) of it without its first."""
        ids: list[tuple[int, int]] = self.tokenizer.get_decoder_prompt_ids(task, language, no_timestamps)
        return ids

    def get_prompt_ids(self, text: str, return_tensors: str | None = "np") -> Any:
        """Token ids of a text to be given to `generate` as `prompt_ids`, as the tokenizer returns them."""
        return self.tokenizer.get_prompt_ids(text, return_tensors)
