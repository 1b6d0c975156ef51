"""Optional packages: imported where a file needs them, refused with the extra to install."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def has_package(module: str) -> bool:
    """True where a package can be imported."""
    try:
        return find_spec(module) is not None
    except ValueError:  # sys.modules holds None
        return False


def missing_package(path: Path, module: str, distribution: str, extra: str) -> ImportError:
    """The error for a file that needs a package which is not installed."""
    return ImportError(
        f"{path} needs {module} to be read: pip install 'tritone[{extra}]', or pip install {distribution}"
    )


def import_for(path: Path, module: str, distribution: str, extra: str) -> Any:
    """The package that reads `path`.

    Raises:
        ImportError: not installed; the message names the extra that brings it.
    """
    if not has_package(module):
        raise missing_package(path, module, distribution, extra)
    return import_module(module)
