"""Command `tritone serve`."""

import os
from collections.abc import Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..builtin_models import DIGITS, ENGLISH, default_recognizer, named
from .display import Display
from .names import check_dtype
from .outputs.lines import message_of
from .terminal import refuse, show_warning

if TYPE_CHECKING:
    import socket

    from ..async_engine import AsyncEngine
    from ..server.settings import ServerSettings

_PACKAGES = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")  # of the extra `server`
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_LIMITS: dict[str, Any] = {"rich_help_panel": "Limits"}
_ACCESS: dict[str, Any] = {"rich_help_panel": "Access"}


def serve(
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]MODEL",
            autocompletion=lambda: [DIGITS.name, ENGLISH.name],
            help="english, digits, or a checkpoint: a name or folder, and its name for clients. May be "
            "repeated; the first is the default. Default: english if there.",
        ),
    ] = None,
    alias: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=MODEL", help="Another name for a model, such as whisper-1."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on; 0.0.0.0 for all.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8000,
    uds: Annotated[
        Path | None, typer.Option("--uds", metavar="PATH", help="Listen on a Unix socket instead.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            autocompletion=lambda: ["cpu", "cuda"], help="cpu or cuda. Default: a GPU if there is one."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            callback=check_dtype,
            autocompletion=lambda: ["float32", "float16", "bfloat16"],
            help="float32, float16 or bfloat16. [default: float32; on a GPU half precision]",
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads for each model; they share the cores.")
    ] = None,
    max_waiting: Annotated[
        int | None,
        typer.Option(min=1, help="Requests of a model that wait; others are refused: 429.", **_LIMITS),
    ] = None,
    max_waiting_seconds: Annotated[
        float | None, typer.Option(min=0, help="Seconds of audio that wait, likewise.", **_LIMITS)
    ] = None,
    max_upload: Annotated[
        float, typer.Option(min=0.001, metavar="MIB", help="Largest body of a request: 413.", **_LIMITS)
    ] = 512,
    max_duration: Annotated[
        float | None,
        typer.Option(min=0.1, metavar="SECONDS", help="Longest recording. Default: a day.", **_LIMITS),
    ] = None,
    deadline: Annotated[
        float | None,
        typer.Option(min=0.001, metavar="SECONDS", help="Longest time for a result: 504.", **_LIMITS),
    ] = None,
    max_connections: Annotated[int, typer.Option(min=1, help="Connections at once.", **_LIMITS)] = 2048,
    client_timeout: Annotated[
        float,
        typer.Option(
            min=0.1,
            metavar="SECONDS",
            help="For a client to send a head, or a part of its body, or take its answer: 408.",
            **_LIMITS,
        ),
    ] = 30,
    drain_timeout: Annotated[
        float,
        typer.Option(
            min=0.1, metavar="SECONDS", help="For requests to end after SIGTERM or Ctrl-C.", **_LIMITS
        ),
    ] = 25,
    upload_dir: Annotated[
        Path | None,
        typer.Option(file_okay=False, exists=True, help="Folder for large uploads. Default: the system's."),
    ] = None,
    api_key_file: Annotated[
        Path | None,
        typer.Option(dir_okay=False, help="Keys, one a line; one may be in TRITONE_API_KEY.", **_ACCESS),
    ] = None,
    protect_health: Annotated[
        bool,
        typer.Option("--protect-health", help="/health, /ready and /metrics need a key too.", **_ACCESS),
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(metavar="ORIGIN", help="Site whose pages may call the server; * for all.", **_ACCESS),
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the log on stderr, a line a request.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Errors alone on stderr.")] = False,
) -> None:
    """Serve transcripts over HTTP, as OpenAI's audio API, with a page to try it.

    The first line on stdout is the address. One process serves all requests, which share the models' batches.
    SIGTERM or Ctrl-C lets requests under way end, a second one kills the server. Exit code: 0; 2 for
    incorrect usage, a model that cannot be used, or an address in use.
    """
    missing = [package for package in _PACKAGES if find_spec(package) is None]
    if missing:
        packages = ", ".join(missing)
        refuse(f"serve needs {packages}, of the extra server; install it: pip install 'tritone[server]'")
    display = Display(verbose, quiet)
    names = _names(model, display)
    aliases = _aliases(alias, names)

    from ..server.access import KEY_VARIABLE, read_keys
    from ..server.settings import MIB, ServerSettings

    try:
        keys, warning = read_keys(api_key_file)
    except (OSError, ValueError) as error:
        refuse(_message(error))
    if warning is not None:
        show_warning(warning)
    settings = ServerSettings(
        max_upload_bytes=int(max_upload * MIB),
        upload_dir=upload_dir,
        client_timeout=client_timeout,
        max_connections=max_connections,
        deadline=deadline,
        drain_timeout=drain_timeout,
        api_keys=keys,
        protect_health=protect_health,
        cors_origins=tuple(cors_origin or ()),
    )
    limits = {
        "max_waiting": max_waiting,
        "max_waiting_seconds": max_waiting_seconds,
        "max_seconds": max_duration,
    }
    with display.log(), ExitStack() as resources:
        try:
            sockets, address = resources.enter_context(_bound(host, port, uds))
        except OSError as error:
            refuse(f"cannot listen on {uds or f'{host}:{port}'}: {error.strerror or error}")
        if uds is None and not keys and host not in _LOOPBACK:
            note = f"no API key: whatever reaches {address} may use it; give --api-key-file or {KEY_VARIABLE}"
            display.note(note)
        with display.loading():
            engines = _load(names, device, dtype, threads, limits)
        _run(engines, aliases, settings, sockets, address)


def _names(given: list[str] | None, display: Display) -> dict[str, str | Path]:
    """Checkpoints by the names that clients give."""
    if not given:
        default, reason = default_recognizer()
        display.note(f"no --model given: serving {default.description}, since {reason}")
        return {default.name: default.folder}
    found: dict[str, str | Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        if not equals:
            name, path = one.rstrip(os.sep) or one, one
        if not name or not path:
            refuse(f"--model {one}: give MODEL, or NAME=MODEL")
        if name in found:
            refuse(f"--model {one}: {name} is there already; name it otherwise: NAME=MODEL")
        model = named(path)
        found[name] = path if model is None else model.folder
    return found


def _aliases(given: list[str] | None, names: Iterable[str]) -> dict[str, str]:
    """Models by their other names."""
    found: dict[str, str] = {}
    for one in given or ():
        name, _, model = one.partition("=")
        if not name or model not in names:
            refuse(f"--alias {one}: give NAME=MODEL, with a model of this server: {', '.join(names)}")
        if name in names or name in found:
            refuse(f"--alias {one}: {name} is there already")
        found[name] = model
    return found


def _bound(
    host: str, port: int, uds: Path | None
) -> "AbstractContextManager[tuple[list[socket.socket], str]]":
    from ..server.sockets import bound_to_path, bound_to_port

    return bound_to_port(host, port) if uds is None else bound_to_path(uds)


def _load(
    names: dict[str, str | Path],
    device: str | None,
    dtype: str | None,
    threads: int | None,
    limits: dict[str, Any],
) -> "dict[str, AsyncEngine]":
    """Load the models; ends the command where one cannot be used."""
    import warnings

    import torch

    from ..async_engine import AsyncEngine
    from ..config import EngineConfig

    if threads is not None:
        torch.set_num_threads(threads)
    engines: dict[str, AsyncEngine] = {}
    try:
        config = replace(
            EngineConfig(), **{name: value for name, value in limits.items() if value is not None}
        )
        with warnings.catch_warnings():
            warnings.showwarning = show_warning  # type: ignore[assignment]
            for name, model in names.items():
                engines[name] = AsyncEngine(model, device=device, dtype=dtype, config=config)
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        refuse(message_of(error))
    return engines


def _run(
    engines: "dict[str, AsyncEngine]",
    aliases: dict[str, str],
    settings: "ServerSettings",
    sockets: "list[socket.socket]",
    address: str,
) -> None:
    from ..server.models import ServedModels
    from ..server.run import serve as run

    run(ServedModels(engines, aliases), settings, sockets, lambda: typer.echo(address))


def _message(error: OSError | ValueError) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return str(error)
