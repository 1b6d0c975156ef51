"""Names of results in a folder, such that no two recordings share one."""

import os
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import count
from pathlib import Path

_MAX_BYTES = 255  # of a name, on most file systems
_SUFFIX_BYTES = 24  # .channel12.jsonl


def plan_names(paths: Sequence[Path], roots: Sequence[Path], owned: Mapping[Path, str]) -> dict[Path, str]:
    """Name in the folder of each recording's results, without a suffix: its own name, as far as that is free.

    Of a recording below a root its folders there go before the name. Recordings that would share a name, as
    a.flac and a.wav, keep their suffixes; where that does not tell them apart, they have all folders of
    their paths before the name, and a number at the end.

    Args:
        paths: paths of recordings, each once.
        roots: folders whose content the call names.
        owned: names in the folder that earlier runs gave, by path; they stay.
    """
    candidates = {path: list(_candidates(path, roots)) for path in paths}
    wanted = Counter((level, _key(name)) for names in candidates.values() for level, name in enumerate(names))
    taken = set(map(_key, owned.values()))
    plan: dict[Path, str] = {}
    for path, names in candidates.items():
        if path in owned:
            plan[path] = owned[path]
            continue
        numbered = (f"{names[1]}.{number}" for number in count(2))
        free = (name for level, name in enumerate(names) if wanted[level, _key(name)] == 1)
        plan[path] = next(
            name for each in (free, numbered) for name in map(_shortened, each) if _key(name) not in taken
        )
        taken.add(_key(plan[path]))
    return plan


def _candidates(path: Path, roots: Sequence[Path]) -> Iterator[str]:
    below = next((path.relative_to(root).parts for root in roots if path.is_relative_to(root)), ())
    if ".." in below or not below:
        below = path.parts[-1:]
    for parts in (below, path.parts):
        inside = [part for part in parts if part not in ("..", path.anchor)] or ["recording"]
        stem = Path(inside[-1]).stem
        yield os.path.join(*inside[:-1], inside[-1] if stem in ("", ".", "..") else stem)
        yield os.path.join(*inside)


def _shortened(name: str) -> str:
    """Name whose last part leaves space for the suffixes of formats."""
    head, last = os.path.split(name)
    room = _MAX_BYTES - _SUFFIX_BYTES
    return (
        os.path.join(head, os.fsdecode(os.fsencode(last)[:room])) if len(os.fsencode(last)) > room else name
    )


def _key(name: str) -> str:
    """Form of a name in which names that some file systems take for one are equal."""
    return unicodedata.normalize("NFC", name).casefold()
