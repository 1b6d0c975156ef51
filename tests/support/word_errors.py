"""Word errors of a transcript, after Whisper's own normalization of English."""

from tritone.models.whisper.normalizers import EnglishTextNormalizer

_normalize = EnglishTextNormalizer({})  # without the table of British spellings, which tiny texts do not need


def word_errors(wanted: str, found: str) -> tuple[int, int]:
    """Substitutions, insertions and deletions at least needed, and the number of words wanted."""
    ours, theirs = _normalize(wanted).split(), _normalize(found).split()
    errors = list(range(len(theirs) + 1))  # between the words so far of `ours` and each start of `theirs`
    for count, word in enumerate(ours, 1):
        diagonal, errors[0] = errors[0], count
        for index, other in enumerate(theirs, 1):
            substituted = diagonal + (word != other)
            diagonal, errors[index] = (
                errors[index],
                min(errors[index] + 1, errors[index - 1] + 1, substituted),
            )
    return errors[-1], len(ours)
