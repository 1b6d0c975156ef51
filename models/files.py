"""Where a checkpoint's files are found."""

import json
import os
from pathlib import Path
from typing import Any


def resolve_folder(name_or_dir: str | os.PathLike[str]) -> Path:
    """The local folder of a checkpoint.

    Raises:
        FileNotFoundError: if it is not a folder.
    """
    folder = Path(name_or_dir).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"no checkpoint folder {str(name_or_dir)!r}; "
            "give the path of a folder that holds config.json and weights"
        )
    return folder


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not a JSON object.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} has no {path.name}; it is not a complete checkpoint")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path} must hold a JSON object, it holds a {type(value).__name__}")
    return value
