"""Packages that only encoded audio and other sampling rates need, imported at their first use.

An engine that is fed arrays at its model's rate works without them.
"""

from importlib import import_module
from typing import Any


def package(name: str, purpose: str) -> Any:
    """Import a package by its name, which is that in the package index too.

    Args:
        name: soundfile, soxr or av.
        purpose: work that needs the package, for the error's message.

    Raises:
        ImportError: the package, or a library that it loads, is missing.
    """
    try:
        return import_module(name)
    except (ImportError, OSError) as error:  # soundfile raises OSError without libsndfile
        raise ImportError(
            f"{purpose} needs the package {name}, which cannot be imported ({error}); install it: "
            f"pip install {name}, or pass arrays at the model's rate"
        ) from error
