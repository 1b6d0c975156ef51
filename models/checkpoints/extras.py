"""Imports of optional packages where a file needs them, with errors that name the extra to install."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def require_package(path: Path, module: str, distribution: str, extra: str) -> None:
    """Check that the package that reads the file `path` is installed.

    Raises:
        ImportError: it is not installed; the message names the extra that brings it.
    """
    try:
        if find_spec(module) is not None:
            return
    except ValueError:  # sys.modules holds None
        pass
    raise ImportError(
        f"{path} needs {module} to be read: pip install 'tritone[{extra}]', or pip install {distribution}"
    )


def import_for(path: Path, module: str, distribution: str, extra: str) -> Any:
    """Import the package that reads the file `path`; errors as in `require_package`."""
    require_package(path, module, distribution, extra)
    return import_module(module)
