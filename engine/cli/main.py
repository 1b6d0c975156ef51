"""Command line of `tritone`. Imports of torch stay inside the commands, so that `--help` takes no time."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...scheduler.request import FinishReason
from ..builtin_models import DIGIT_CLASSIFIER, DIGITS, ENGLISH, default_recognizer
from ..config import DEFAULT_TOP_K, Channels, Encoding, Short, SpeechTask, Windows
from ..outputs import Classification, Transcription
from ..subtitles.cues import MAX_LINE_COUNT, MAX_LINE_WIDTH, MIN_LINE_WIDTH
from .bench import bench
from .convert import convert as convert_checkpoint
from .display import Display
from .environment import show_environment
from .inputs import find_inputs, find_recordings, find_texts, is_several
from .names import SETTINGS, CliCommand, CliGroup, check_dtype
from .outputs.destination import classifier_output, recognizer_output
from .outputs.times import times_of_formats
from .run import Command, Setup, run
from .scoring import Scores
from .serve import serve
from .speakers import Speakers
from .terminal import refuse

if TYPE_CHECKING:
    from ..engine import Engine

app = typer.Typer(
    cls=CliGroup, context_settings=SETTINGS, no_args_is_help=True, pretty_exceptions_enable=False
)

# Options of every command.
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", dir_okay=False, help="Write to this file; an existing one is continued."),
]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        metavar="FORMAT,...",
        help="text, jsonl, json, srt, vtt, tsv, or all. Default: text; to a file by its suffix, else jsonl; "
        "to a folder all.",
    ),
]
LineFormats = Annotated[
    list[str] | None,
    typer.Option("--format", "-f", metavar="FORMAT", help="text or jsonl. Default: text; jsonl to a file."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Write results from scratch.")]
Device = Annotated[
    str | None,
    typer.Option(
        "--device",
        autocompletion=lambda: ["cpu", "cuda"],
        help="cpu or cuda, or several: cuda:0,cuda:1. Default: a GPU if there is one.",
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype",
        callback=check_dtype,
        autocompletion=lambda: ["float32", "float16", "bfloat16"],
        help="float32, float16 or bfloat16. [default: float32; on a GPU half precision]",
    ),
]
ChannelsOption = Annotated[
    Channels, typer.Option("--channels", help="One result for a recording, or one for each of its channels.")
]
EncodingOption = Annotated[
    Encoding | None, typer.Option("--encoding", help="Headerless G.711. Default: by header or suffix.")
]
ShortOption = Annotated[
    Short, typer.Option("--short", help="A recording that is too short for the model fails, or is empty.")
]
Null = Annotated[
    bool, typer.Option("--null", "-0", help="A list on stdin has NULs between its paths, as of find -print0.")
]
Shard = Annotated[
    str | None, typer.Option("--shard", metavar="K/N", help="Only every N-th input, from the K-th on.")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Errors alone on stderr: no bar and no summary.")]
VadFilter = Annotated[
    bool,
    typer.Option("--vad-filter", help="Decode speech alone: Silero's detector, of the extra vad, finds it."),
]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads for the model.")]


_SUBTITLES: dict[str, Any] = {"rich_help_panel": "Subtitles"}
_WHISPER: dict[str, Any] = {"rich_help_panel": "Whisper's options"}


def _print_version(wanted: bool) -> None:
    if wanted:
        from ... import __version__

        typer.echo(f"tritone {__version__}")
        raise typer.Exit


@app.callback()
def tritone(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Transcribe speech, classify speech or text: many inputs at once, each result as if it were alone.

    tritone FILE... is tritone transcribe FILE...; a file with the name of a command is ./NAME.
    """


@app.command(cls=CliCommand)
def transcribe(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH", help="Recordings, folders, globs; - for a recording or a list of paths on stdin."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            autocompletion=lambda: [DIGITS.name, ENGLISH.name],
            help="english, digits, or a checkpoint: a name or folder. Default: english if there.",
        ),
    ] = None,
    num_beams: Annotated[int | None, typer.Option(min=1, help="Beams. Default: the checkpoint's.")] = None,
    language: Annotated[
        str | None,
        typer.Option(help="Language to translate into, for Whisper the one spoken. Default: it detects it."),
    ] = None,
    task: Annotated[
        SpeechTask | None, typer.Option(help="transcribe, or translate into English.", **_WHISPER)
    ] = None,
    windows: Annotated[
        Windows | None,
        typer.Option(
            help="Long recordings: one window after the other, or cut at pauses (faster). "
            "Default: sequential.",
            **_WHISPER,
        ),
    ] = None,
    max_window: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Longest window of a recording. Default: the model's, else 30."),
    ] = None,
    return_timestamps: Annotated[
        bool, typer.Option("--timestamps", help="Segments with times of short recordings too.", **_WHISPER)
    ] = False,
    word_timestamps: Annotated[
        bool | None,
        typer.Option(
            "--words/--no-words",
            help="Times of words, for JSON and subtitles. Default: where the model has them.",
            **_WHISPER,
        ),
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="Text that goes before, as context.", **_WHISPER)] = None,
    hotwords: Annotated[str | None, typer.Option(help="Words to expect in every window.", **_WHISPER)] = None,
    patience: Annotated[
        float | None,
        typer.Option(
            help="A beam search ends with so many times --num-beams results. Default: by their scores.",
            **_WHISPER,
        ),
    ] = None,
    condition_on_prev_tokens: Annotated[
        bool,
        typer.Option("--condition-on-prev-tokens", help="Earlier windows' text is context.", **_WHISPER),
    ] = False,
    temperature: Annotated[
        list[float] | None,
        typer.Option(min=0, help="Several: tried in turn where a text looks wrong. Default: 0.", **_WHISPER),
    ] = None,
    compression_ratio_threshold: Annotated[
        float | None, typer.Option(help="Above it a text looks wrong, as it repeats itself.", **_WHISPER)
    ] = None,
    logprob_threshold: Annotated[
        float | None, typer.Option(help="Mean below which a text looks wrong.", **_WHISPER)
    ] = None,
    no_speech_threshold: Annotated[
        float | None,
        typer.Option(help="Probability above which a window that looks wrong is skipped.", **_WHISPER),
    ] = None,
    output: OutputFile = None,
    output_dir: Annotated[
        Path | None,
        typer.Option(
            "--output-dir",
            "-o",
            file_okay=False,
            help="Write files for each recording to this folder; an existing one is completed.",
        ),
    ] = None,
    formats: Formats = None,
    overwrite: Overwrite = False,
    max_line_width: Annotated[
        int | None,
        typer.Option(min=MIN_LINE_WIDTH, help=f"Columns of a line. Default: {MAX_LINE_WIDTH}.", **_SUBTITLES),
    ] = None,
    max_line_count: Annotated[
        int | None, typer.Option(min=1, help=f"Lines of a cue. Default: {MAX_LINE_COUNT}.", **_SUBTITLES)
    ] = None,
    highlight_words: Annotated[
        bool, typer.Option("--highlight-words", help="Underline each word in turn.", **_SUBTITLES)
    ] = False,
    device: Device = None,
    dtype: Dtype = None,
    max_new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Longest result. Default: by the recording's length.")
    ] = None,
    channels: ChannelsOption = "mix",
    encoding: EncodingOption = None,
    short: ShortOption = "fail",
    null: Null = False,
    vad_filter: VadFilter = False,
    manifest: Annotated[
        Path | None,
        typer.Option("--manifest", help="Recordings of a .jsonl, .csv, .tsv, wav.scp or audio folder."),
    ] = None,
    ref: Annotated[
        str | None,
        typer.Option("--ref", help="Reference texts, for WER and CER: a column of the manifest, or a file."),
    ] = None,
    rttm: Annotated[
        Path | None,
        typer.Option("--rttm", help="Speakers' turns, by the recording's stem: an RTTM file, or a folder."),
    ] = None,
    shard: Shard = None,
    threads: Threads = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Transcribe recordings, in the order given.

    Prints a line for each: path, tab, text; for a single file just the text. With --channels split there is a
    line for each channel, and before its text the channel and their number: 0/2, tab. A recording that fails
    is named on stderr and the others go on. Exit code: 0; 1 if any failed; 2 for incorrect usage.

    A file in srt, vtt, tsv or json is of one recording; --output-dir writes files for each. It keeps the
    structure of folders, and skips recordings whose files are all there.

    An existing output file is continued: recordings with a result there, of all their channels, are skipped,
    others are tried again, and a line torn by a crash is dropped. The model, dtype and all options that
    change results must be those that it was made with, and paths must be spelled the same.
    """
    reading = _reading(channels, encoding, short) | ({"vad_filter": True} if vad_filter else {})
    options: dict[str, Any] = {
        "num_beams": num_beams,
        "max_new_tokens": max_new_tokens,
        "language": language,
        "task": task,
        "windows": windows,
        "max_window": max_window,
        "return_timestamps": return_timestamps or None,
        "prompt": prompt,
        "hotwords": hotwords,
        "patience": patience,
        "condition_on_prev_tokens": condition_on_prev_tokens or None,
        "temperature": temperature[0] if temperature and len(temperature) == 1 else temperature or None,
        "compression_ratio_threshold": compression_ratio_threshold,
        "logprob_threshold": logprob_threshold,
        "no_speech_threshold": no_speech_threshold,
        "word_timestamps": word_timestamps,
    }
    layout = {
        "max_line_width": max_line_width,
        "max_line_count": max_line_count,
        "highlight_words": highlight_words or None,
    }
    roots = (paths or []) if manifest is None else [str(manifest if manifest.is_dir() else manifest.parent)]
    written = recognizer_output(output, output_dir, formats, overwrite, layout, roots)
    if ref is not None and channels == "split":
        refuse("--ref is of one text a recording; leave --channels split out")
    inputs = find_inputs(paths, manifest, ref, null, encoding is not None)
    speakers = None if rttm is None else Speakers(rttm)

    def submit(engine: Any, sources: Any) -> Any:
        own = options | times_of_formats(engine.model, written, options, with_words=speakers is not None)
        results = engine.transcribe(sources, journals=written.journals, **own, **reading)
        return results if speakers is None else map(speakers.label, results)

    command = Command(
        of_texts=False,
        submit=submit,
        failure=lambda error: Transcription("", (), FinishReason.ERROR, 0.0, error=error),
        split=channels == "split",
    )
    run(
        inputs.share(shard),
        command,
        Setup(model, device, dtype, threads, *default_recognizer()),
        options | reading | layout | {"rttm": None if rttm is None else str(rttm)},
        written,
        show_name=is_several(paths, inputs),
        display=Display(verbose, quiet),
        scores=None if ref is None else Scores(),
    )


@app.command(cls=CliCommand)
def classify(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH|TEXT",
            help="Recordings, folders, globs; with --text texts; - for lines of either on stdin.",
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            envvar="TRITONE_CLASSIFIER",
            show_envvar=False,
            help="Checkpoint of a classifier: a name or folder. Default: single English digits.",
        ),
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Classify texts, not recordings.")] = False,
    pairs: Annotated[bool, typer.Option("--pairs", help="Each text is a pair with a tab between.")] = False,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Cut texts that are too long; by default they fail.")
    ] = False,
    top_k: Annotated[int, typer.Option(min=1, help="Labels of a result, best first.")] = DEFAULT_TOP_K,
    output: OutputFile = None,
    formats: LineFormats = None,
    overwrite: Overwrite = False,
    device: Device = None,
    dtype: Dtype = None,
    channels: ChannelsOption = "mix",
    encoding: EncodingOption = None,
    short: ShortOption = "fail",
    null: Null = False,
    shard: Shard = None,
    threads: Threads = None,
    verbose: Verbose = False,
    quiet: Quiet = False,
) -> None:
    """Classify recordings or texts, in the order given.

    Prints a line for each: path or text, then labels and scores, with tabs between; for a single file or text
    just those. Channels, failures, exit codes and output files are as with transcribe; an output file is
    continued with the same model, dtype and options that change results.
    """
    if model is None and text:
        refuse("--text needs --model, the name or folder of a classifier of texts; none is built in")
    for name, given in (("--pairs", pairs), ("--truncate", truncate)):
        if given and not text:
            refuse(f"{name} is for texts; give --text too, or leave it out")
    reading = _reading(channels, encoding, short)
    if text and reading:
        refuse(f"--{next(iter(reading))} is of recordings; leave it out, or --text")
    if text and null:
        refuse("--null is of paths; leave it out, or --text")
    options: dict[str, Any] = {"top_k": top_k, "pairs": pairs or None, "truncate": truncate or None}

    if device is not None and "," in device:
        refuse(f"--device {device}: several devices are for transcribe; name one")

    def submit(engine: "Engine", sources: list[Any]) -> Iterator[Classification]:
        results = engine.classify(sources, top_k=top_k, truncate=truncate, **reading)
        if text != (engine.sampling_rate is None):
            name = type(engine.model).__name__
            refuse(f"a {name} classifies recordings; leave --text out" if text else f"a {name} needs --text")
        return results

    command = Command(
        of_texts=text,
        submit=submit,
        failure=lambda error: Classification((), FinishReason.ERROR, error=error),
        split=channels == "split",
    )
    inputs = find_texts(sources, pairs) if text else find_recordings(sources, null, encoding is not None)
    run(
        inputs.share(shard),
        command,
        Setup(model, device, dtype, threads, DIGIT_CLASSIFIER),
        options | reading,
        classifier_output(output, formats, overwrite),
        show_name=len(inputs.items) > 1 or sources == ["-"] if text else is_several(sources, inputs),
        display=Display(verbose, quiet),
    )


@app.command()
def convert(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Checkpoint: a name, folder or file.")],
    target: Annotated[Path, typer.Argument(metavar="TARGET", help="Folder to write.")],
    dtype: Annotated[
        str | None, typer.Option(help="float32, float16 or bfloat16. [default: the stored one]")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write into a folder that has files already.")
    ] = False,
) -> None:
    """Convert a checkpoint to safetensors, with configuration and processor, as transformers reads it.

    SOURCE is anything that --model takes, CTranslate2 folders and OpenAI's .pt files among it, or weights of
    TensorFlow or Flax. Exit code: 0; 1 if writing failed; 2 for incorrect usage or a bad source.
    """
    convert_checkpoint(source, target, dtype, overwrite)


app.command(cls=CliCommand)(serve)
app.command(cls=CliCommand)(bench)


@app.command()
def env(ctx: typer.Context) -> None:
    """Show versions, devices, extras, models, folders, and the settings from the environment."""
    group: Any = ctx.find_root().command
    show_environment(command for command in group.commands.values() if isinstance(command, CliCommand))


def _reading(channels: Channels, encoding: Encoding | None, short: Short) -> dict[str, Any]:
    """Options of reading that are not the defaults, which the origin of results leaves out."""
    given = {"channels": channels, "encoding": encoding, "short": short}
    return {name: value for name, value in given.items() if value not in (None, "mix", "fail")}
