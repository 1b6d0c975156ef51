"""Names of commands and options: those of other programs as aliases, underscores, and suggestions."""

import contextlib
import glob
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from .terminal import visible

DEFAULT_COMMAND = "transcribe"
# Options of openai's whisper, whisper-ctranslate2 and faster-whisper, and arguments of `Engine.transcribe`.
ALIASES = {
    "beam-size": "num-beams",
    "chunk-length": "max-window",
    "compute-type": "dtype",
    "condition-on-previous-text": "condition-on-prev-tokens",
    "cpu-threads": "threads",
    "initial-prompt": "prompt",
    "log-prob-threshold": "logprob-threshold",
    "output-format": "format",
    "return-timestamps": "timestamps",
    "word-timestamps": "words",
}
# Options that are of one call alone, and so have no setting in the environment.
_OF_A_CALL = {
    *(
        "--help",
        "--json",
        "--manifest",
        "--null",
        "--output",
        "--output-dir",
        "--overwrite",
        "--pairs",
        "--plot",
        "--ref",
        "--seconds",
        "--text",
    ),
}
# Options of those programs that are none here, each with what there is instead.
REMEDIES = {
    "batch-size": "leave it out, since recordings share batches as they come",
    "batched": "leave it out, or --windows pauses for a long recording's windows at once",
    "best-of": "leave it out, since one text is drawn at each --temperature",
    "clip-timestamps": "cut the recording first: ffmpeg -ss START -to END -i IN out.wav",
    "device-index": "name the device: --device cuda:1",
    "download-root": "HF_HOME is the folder of the Hub's files",
    "model-dir": "--model takes a folder",
    "temperature-increment-on-fallback": "give each temperature: --temperature 0 --temperature 0.2",
    "workers": "leave it out: one process serves, so that all requests share its models' batches",
    "without-timestamps": "leave it out; --timestamps is what adds times",
}
_TRUTH = {"True": True, "False": False}  # as Whisper's flags take them; a file of that name is ./True
_FP16 = {True: "float16", False: "float32"}  # dtypes of --fp16 True and False


def canonical(name: str) -> str:
    """Name of an option as it is declared here, without its dashes: no underscores, aliases resolved."""
    dashed = name.replace("_", "-")
    positive = dashed.removeprefix("no-")
    return dashed.removesuffix(positive) + ALIASES.get(positive, positive)


SETTINGS: dict[str, Any] = {"token_normalize_func": canonical, "help_option_names": ["--help", "-h"]}


def setting_name(param: Any) -> str | None:
    """Variable of the environment that sets an option, TRITONE_NUM_BEAMS say; None where there is none."""
    long = next((opt for opt in param.opts if opt.startswith("--")), None)
    if long is None or long in _OF_A_CALL:
        return None
    return "TRITONE_" + long[2:].replace("-", "_").upper()


def check_dtype(dtype: str | None) -> str | None:
    """Check a dtype as it is given, in faster-whisper's names too; None for its "default" and "auto".

    Raises:
        typer.BadParameter: a quantized one.
    """
    if dtype is not None and dtype.startswith("int"):
        raise typer.BadParameter(
            f"{dtype}: models compute in float32, float16 or bfloat16 here; weights that are stored as int8 "
            "or int16 are read, so leave it out"
        )
    return None if dtype in ("auto", "default") else dtype


class CliCommand(TyperCommand):
    """Command that knows the options of other programs, and takes flags with True or False, as they do."""

    def __init__(
        self, *arguments: Any, context_settings: dict[str, Any] | None = None, **options: Any
    ) -> None:
        settings = SETTINGS | (context_settings or {})
        super().__init__(*arguments, context_settings=settings, **options)
        param: Any
        for param in self.params:
            if param.envvar is None and (variable := setting_name(param)) is not None:
                param.envvar, param.show_envvar = (
                    variable,
                    False,
                )  # it would double the help; `env` lists them

    def make_parser(self, ctx: Any) -> Any:
        """Parser in which each flag has a --no- form, so that a call can unset what the environment sets."""
        parser = super().make_parser(ctx)
        for flag in _flags(self.get_params(ctx)):
            if not flag.secondary_opts and not flag.is_eager:
                negative = [f"--no-{opt[2:]}" for opt in flag.opts if opt.startswith("--")]
                parser.add_option(flag, negative, flag.name, action="store_const", const=False)
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments once flags' values are taken out."""
        return super().parse_args(ctx, _without_flag_values(args, self.get_params(ctx)))


class CliGroup(TyperGroup):
    """Commands of which one is the default, where the first argument is a file or an option.

    A usage error suggests names that are near, and shows control characters of its arguments.
    """

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Make the context of a call."""
        with _explained_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the arguments name."""
        with _explained_errors():
            return super().invoke(ctx)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse arguments, with the default command before a first one that only it can take."""
        if args and args[0] not in self.commands and not self._is_own(ctx, args[0]):
            args = [DEFAULT_COMMAND, *args]
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command of the first argument."""
        if args[0] not in self.commands and not ctx.resilient_parsing:
            ctx.fail(
                f"No command and no file is named {args[0]!r}."
                + _suggestion(args[0], self.commands, f" The commands are {', '.join(self.commands)}.")
            )
        return super().resolve_command(ctx, args)

    def _is_own(self, ctx: Any, first: str) -> bool:
        """Check whether a first argument is an option of the group, or a word that is no file either."""
        if first.startswith("-"):
            return first.partition("=")[0] in {opt for param in self.get_params(ctx) for opt in param.opts}
        return not (os.path.lexists(first) or glob.has_magic(first) or os.sep in first or "." in first)


def _flags(params: Iterable[Any]) -> list[Any]:
    """Options that take no value."""
    return [param for param in params if getattr(param, "is_flag", False)]


def _without_flag_values(args: Sequence[str], params: Sequence[Any]) -> list[str]:
    """Arguments with --words for --words True, --no-words for --words False, and --dtype for --fp16."""
    flags = {opt for flag in _flags(params) for opt in flag.opts}
    valued = {opt for param in params if param.param_type_name == "option" for opt in param.opts} - flags
    found: list[str] = []
    rest = deque(args)
    while rest:
        arg = rest.popleft()
        if arg == "--":
            return [*found, arg, *rest]
        given, equals, value = arg.partition("=")
        name = f"--{canonical(given[2:])}" if given.startswith("--") else given
        if name in flags or name == "--fp16":
            if not equals and rest and rest[0] in _TRUTH:
                value = rest.popleft()
            truth = _TRUTH.get(value.capitalize()) if equals else _TRUTH.get(value, True)
            if name == "--fp16" and truth is not None:
                found += ["--dtype", _FP16[truth]]
            else:  # of another value the parser complains
                found.append({True: name, False: f"--no-{name[2:]}", None: arg}[truth])
        else:
            found.append(arg)
            if name in valued and not equals and rest:
                found.append(rest.popleft())
    return found


def _suggestion(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Sentence with the known names that are nearest to a misspelled one."""
    near = get_close_matches(name, known)
    return f" Did you mean {' or '.join(near)}?" if near else otherwise


def _explain(error: Any) -> None:
    """Complete the message of an error: what an unknown option is instead, the setting that is to blame."""
    ctx, name = getattr(error, "ctx", None), getattr(error, "option_name", None)
    if hasattr(error, "possibilities") and name is not None:
        error.possibilities = None
        if (remedy := REMEDIES.get(name[2:])) is not None:
            error.message = f"{name} is no option here: {remedy}."
        elif ctx is not None:
            contexts = [ctx] if ctx.parent is None else [ctx, ctx.parent]
            opts = {opt for one in contexts for param in one.command.get_params(one) for opt in param.opts}
            aliases = {f"--{alias}" for alias, option in ALIASES.items() if f"--{option}" in opts}
            error.message += "." + _suggestion(name, sorted(opts | aliases))

    param = getattr(error, "param", None)
    if ctx is not None and isinstance(variable := getattr(param, "envvar", None), str):
        source = ctx.get_parameter_source(param.name)  # type: ignore[union-attr]
        if source is not None and source.name == "ENVIRONMENT":
            error.message += f" ({variable} of the environment)"


@contextlib.contextmanager
def _explained_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Click's errors of usage, which typer does not export, are those with a message.
        if isinstance(getattr(error, "message", None), str):
            _explain(error)
            error.message = visible(error.message)  # type: ignore[attr-defined]
        raise
