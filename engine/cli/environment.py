"""Report of `tritone env`: versions, devices, extras, models, folders, and settings from the environment."""

import os
import platform
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import typer

from ..builtin_models import DIGITS, ENGLISH
from .terminal import visible

_PREFIX = "TRITONE_"
# Variables that are no option's.
_OTHERS = {
    "TRITONE_API_KEY": "key that clients of serve need",
    "TRITONE_CACHE": "folder of compiled kernels' resources",
    "TRITONE_NVTX": "NVTX ranges around the phases of a step",
}
_SECRETS = {"TRITONE_API_KEY"}
_DEVELOPERS = {"dev", "docs", "fuzz", "peers", "train"}  # extras of no use to a command
_REQUIREMENT = re.compile(r"([\w.-]+).*\bextra == ['\"]([\w-]+)['\"]")


def show_environment(commands: Iterable[Any]) -> None:
    """Print the environment in which the commands run, one name and value a line, without secrets."""
    settings = {
        param.envvar: f"{param.opts[0]} of {command.name}"
        for command in reversed(list(commands))
        for param in command.params
        if isinstance(param.envvar, str)
    }
    for title, lines in (
        ("versions", _versions()),
        ("devices", _devices()),
        ("extras", _extras()),
        ("models", _models()),
        ("folders", _folders()),
        ("settings", _settings(settings)),
    ):
        typer.echo(f"{title}:")
        for name, value in lines:
            typer.echo(visible(f"  {name:<14} {value}"))
    typer.echo("A setting goes before a default, and an option of the command before a setting. There are:")
    typer.echo("  " + " ".join(sorted(settings)))


def _versions() -> Iterator[tuple[str, str]]:
    from ... import __version__

    yield "tritone", __version__
    yield "python", platform.python_version()
    for name in ("torch", "triton", "numpy", "av", "soundfile", "soxr"):
        yield name, _version(name) or "not installed"


def _devices() -> Iterator[tuple[str, str]]:
    import torch

    yield "cpu", f"{platform.machine()}, {torch.get_num_threads()} threads"
    if not torch.cuda.is_available():
        built = "this build of torch has none" if torch.version.cuda is None else "torch finds no GPU"
        yield "cuda", f"not available: {built}"
    for index in range(torch.cuda.device_count()):
        memory = torch.cuda.get_device_properties(index).total_memory / 2**30
        yield f"cuda:{index}", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB, {torch.version.cuda}"


def _extras() -> Iterator[tuple[str, str]]:
    try:
        requirements = metadata.requires("tritone") or []
    except metadata.PackageNotFoundError:  # run from a folder that is not installed
        return
    packages: dict[str, list[str]] = {}
    for requirement in requirements:
        if (found := _REQUIREMENT.match(requirement)) is not None and found[2] not in _DEVELOPERS:
            packages.setdefault(found[2], []).append(found[1])
    for extra, names in packages.items():
        missing = any(_version(name) is None for name in names)
        yield extra, f"missing: pip install 'tritone[{extra}]'" if missing else "installed"


def _models() -> Iterator[tuple[str, str]]:
    yield DIGITS.name, "built in"
    missing = f"missing: {ENGLISH.remedy}"
    yield ENGLISH.name, missing if ENGLISH.find() is None else f"of the extra {ENGLISH.name}"


def _folders() -> Iterator[tuple[str, str]]:
    if find_spec("huggingface_hub") is not None:
        from huggingface_hub.constants import HF_HUB_CACHE

        yield "hub", str(HF_HUB_CACHE)
    from ...kernels.runtime.compile_cache import cache_folder

    yield "kernels", str(cache_folder())
    yield "triton", os.environ.get("TRITON_CACHE_DIR") or str(Path.home() / ".triton" / "cache")


def _settings(settings: dict[str, str]) -> Iterator[tuple[str, str]]:
    given = sorted(name for name in os.environ if name.startswith(_PREFIX))
    for name in given:
        if (meaning := (settings | _OTHERS).get(name)) is None:
            near = get_close_matches(name, settings, n=1)
            meaning = "unknown, and ignored" + (f"; did you mean {near[0]}?" if near else "")
        value = "set, not shown" if name in _SECRETS else os.environ[name]
        yield name, f"{value}  ({meaning})"
    if not given:
        yield "none", f"no variable of the environment begins with {_PREFIX}"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
