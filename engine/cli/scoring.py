"""Error rates of words and characters against references, by jiwer."""

from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

from ..outputs import Transcription
from .outputs.lines import Result
from .terminal import refuse


@dataclass
class _Counts:
    errors: int = 0
    length: int = 0  # of the references

    def add(self, found: Any) -> None:
        self.errors += found.substitutions + found.deletions + found.insertions
        self.length += found.hits + found.substitutions + found.deletions

    def __str__(self) -> str:
        rate = f"{100 * self.errors / self.length:.2f} %" if self.length else "undefined"
        return f"{rate} ({self.errors} of {self.length})"


@dataclass
class Scores:
    """Word and character error rates over recordings: all errors by the length of all references.

    Texts are normalized first: English ones of a Whisper by its normalizer of English, which writes numbers
    in figures and spells out contractions, all others by its basic one: lower case, no punctuation.
    """

    count: int = 0
    _words: _Counts = field(default_factory=_Counts)
    _characters: _Counts = field(default_factory=_Counts)
    _normalizers: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        if find_spec("jiwer") is None:
            refuse("--ref needs the package jiwer; install it: pip install 'tritone[wer]'")

    def add(self, reference: str, result: Result, model: Any) -> None:
        """Count the errors of a transcript by this model; a failure counts as none."""
        import jiwer

        if not isinstance(result, Transcription) or result.error is not None:
            return
        is_english = model.config.model_type == "whisper" and result.language in (None, "en")
        ours, theirs = (self._normalize(text, is_english) for text in (reference, result.text))
        self.count += 1
        self._words.add(jiwer.process_words(ours, theirs))
        self._characters.add(jiwer.process_characters(ours, theirs))

    def line(self) -> str:
        """Line of the summary."""
        how = " and ".join(sorted(self._normalizers))
        return f"WER {self._words} words, CER {self._characters} characters, over {self.count} recordings" + (
            f", normalized for {how}" if how else ""
        )

    def _normalize(self, text: str, is_english: bool) -> str:
        from ...models.whisper.normalizers import BasicTextNormalizer, EnglishTextNormalizer

        self._normalizers.add("English" if is_english else "any language")
        normalizer: Any = EnglishTextNormalizer({}) if is_english else BasicTextNormalizer()
        return normalizer(text).strip()
