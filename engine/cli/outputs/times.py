"""Times that formats of results need, asked of a model that gives them where it is asked."""

from typing import Any

from ....scheduler.model_protocol import Task
from ..terminal import refuse
from .destination import Output
from .formats import TIMED, WITH_WORDS


def times_of_formats(
    model: Any, output: Output, options: dict[str, Any], with_words: bool = False
) -> dict[str, Any]:
    """Options of Whisper that give the segments and words which the formats hold; none for other models.

    With `with_words` both are asked for in any case.

    Ends the command where words are to be highlighted and have no times.
    """
    from ....models.whisper.generation import WhisperGenerationMixin  # which imports torch

    added: dict[str, Any] = {}
    has_words = model.task is Task.CTC
    if isinstance(model, WhisperGenerationMixin):
        if with_words or any(one in TIMED for one in output.formats):
            added["return_timestamps"] = True
        wants_words = with_words or any(one in WITH_WORDS for one in output.formats)
        if options.get("word_timestamps") is None and wants_words:
            added["word_timestamps"] = model.has_alignment_heads or None
        has_words = bool((options | added).get("word_timestamps"))
    if output.layout.get("highlight_words") and not has_words:
        refuse(
            f"--highlight-words needs the times of words, and this {type(model).__name__} gives none"
            f"{' with --no-words' if options.get('word_timestamps') is False else ''}; leave it out"
        )
    return added
