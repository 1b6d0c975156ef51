"""Speakers of the command's results, from RTTM files."""

from dataclasses import replace
from pathlib import Path

from ..outputs import Transcription
from ..speakers import read_rttm, with_speakers
from .terminal import refuse


class Speakers:
    """Turns of a run's recordings, by the stem of their names.

    Args:
        path: RTTM file, or a folder of them; the command ends where it cannot be used.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._turns = read_rttm(path)
        except OSError as error:
            refuse(f"--rttm {path}: cannot be read ({error.strerror})")
        except ValueError as error:
            refuse(f"--rttm {error}")

    def label(self, result: Transcription) -> Transcription:
        """Result with speakers; one of a recording without turns has a warning."""
        # Standard input is a file object whose name is "-".
        stem = Path(getattr(result.source, "name", None) or str(result.source)).stem
        if result.error is not None or stem in self._turns:
            return with_speakers(result, self._turns.get(stem, ()))
        warning = f"no turns of {stem!r} in {self._path}: no speakers"
        return replace(result, warnings=(*result.warnings, warning))
