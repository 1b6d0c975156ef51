"""Table of faults: for each site and kind, what must happen to the culprit and to all else.

    when       "culprit": each time that the culprit is worked on; "once": the first time, for any request;
               "always".
    culprit    "error": its own result has the error; "same": its result is as it is alone.
    beside     the same of the other requests of the call.
    health     state of the engine afterwards. With the fault gone, later requests give what they give alone;
               a "failed" engine refuses them with the reason. `close` ends whatever it is.
    exit_code  of the command for these sources; None where it is not run. Results that are the same are
               written, whatever it is, and there is no traceback.

docs/errors.md has a short version for readers.
"""

from dataclasses import dataclass

ORDINARY = ("Exception", "MemoryError")
IN_STEP = (*ORDINARY, "OutOfMemory", "BaseException", "StopIteration")
ALL = (*IN_STEP, "SystemExit")
# In the caller's own thread, where SystemExit is the caller's.
OWN_THREAD = (*ORDINARY, "BaseException", "StopIteration")
GENERATION = ("greedy", "beams", "cores")
DIGITS = "tritone.models.speech_to_text.model:Speech2TextForConditionalGeneration"


@dataclass(frozen=True)
class Row:
    """One site with its kinds of faults and their outcome."""

    site: str
    target: str  # module:name of the function that fails
    on: tuple[str, ...] = ("greedy",)
    kinds: tuple[str, ...] = ALL
    when: str = "culprit"
    known_by: str = "here"  # how the site tells the culprit: "here", "source", "array", "request", "duration"
    culprit: str = "error"
    beside: str = "same"
    health: str = "ok or degraded"
    times: int | None = None  # most faults; None for any number
    exit_code: int | None = 1


INPUTS = "tritone.engine.tasks.inputs"
READING = [
    Row(
        "copy at submission",
        f"{INPUTS}:as_samples",
        on=("arrays",),
        kinds=OWN_THREAD,
        known_by="array",
        health="ok",
        exit_code=None,
    ),
    Row("reading a recording", f"{INPUTS}:load_audio", on=("greedy", "ctc"), known_by="source", health="ok"),
    Row("decoding a file", "soundfile:SoundFile.read", health="ok"),
    Row("resampling", "soxr:ResampleStream.resample_chunk", health="ok"),
    Row(
        "tokenizing",
        "tritone.models.bert.tokenizer:BertTokenizer.__call__",
        on=("texts",),
        known_by="source",
        health="ok",
    ),
    Row(
        "resolving the options",
        "tritone.engine.tasks.generation:GenerationTask.resolve",
        known_by="duration",
        health="ok",
    ),
    Row(
        "admission", "tritone.scheduler.loop:GenerationLoop.submit", on=("greedy", "ctc"), known_by="request"
    ),
]
ENCODING = [
    Row(
        "front end",
        "tritone.models.speech_to_text.feature_extractor:Speech2TextFeatureExtractor.extract_packed",
        kinds=(*IN_STEP, "NaN"),
    ),
    Row("encode", f"{DIGITS}.encode", on=GENERATION, kinds=(*IN_STEP, "NaN")),
    Row("cross-attention keys and values", f"{DIGITS}.cross_key_values", kinds=IN_STEP),
    Row("cross-attention store", "tritone.scheduler.cache.paged_cache:PagedCache.store_cross", kinds=IN_STEP),
    Row(
        "predict, CTC",
        "tritone.models.wav2vec2.ctc:Wav2Vec2ForCTC.predict",
        on=("ctc",),
        kinds=(*IN_STEP, "NaN"),
    ),
    Row(
        "predict, classifier",
        "tritone.models.bert.model:BertForSequenceClassification.predict",
        on=("texts",),
        kinds=(*IN_STEP, "NaN"),
    ),
]
DECODING = [
    Row("decode", f"{DIGITS}.decode", on=GENERATION, kinds=(*IN_STEP, "NaN")),
    Row(
        "decode, once",
        f"{DIGITS}.decode",
        on=GENERATION,
        when="once",
        culprit="same",
        exit_code=0,
        kinds=IN_STEP,
    ),
    Row("selection", "tritone.scheduler.decode_step:select", on=GENERATION, kinds=IN_STEP),
    Row(
        "selection, once",
        "tritone.scheduler.decode_step:select",
        when="once",
        culprit="same",
        exit_code=0,
        kinds=IN_STEP,
    ),
    Row("token append", "tritone.scheduler.sampling.select:append", on=("greedy", "cores"), kinds=IN_STEP),
    Row("beam advance", "tritone.scheduler.sampling.select:advance_beams", on=("beams",), kinds=IN_STEP),
    Row("decode of every request", f"{DIGITS}.decode", when="always", beside="error", kinds=IN_STEP),
    Row("decode, exit", f"{DIGITS}.decode", kinds=("SystemExit",), beside="any", health="failed"),
]
STEPS = [  # of the loop, for all requests of a step at once
    Row(
        "batch layout, once",
        "tritone.scheduler.batch:Batch.of",
        when="once",
        culprit="same",
        exit_code=0,
        kinds=IN_STEP,
    ),
    Row(
        "joining the batch, once",
        "tritone.scheduler.slot_tables:SlotTables.admit",
        when="once",
        culprit="same",
        exit_code=0,
        kinds=IN_STEP,
    ),
    Row(
        "launch, once",
        "tritone.scheduler.runner:ModelRunner.launch",
        when="once",
        culprit="any",
        beside="any",
        kinds=IN_STEP,
    ),
    Row(
        "host copy, once",
        "tritone.scheduler.step_output:HostCopy.values",
        when="once",
        culprit="any",
        beside="any",
        kinds=IN_STEP,
    ),
    Row(
        "collect, once",
        "tritone.scheduler.runner:ModelRunner.collect",
        when="once",
        culprit="any",
        beside="any",
        kinds=IN_STEP,
    ),
    Row(
        "plan, once",
        "tritone.scheduler.scheduler:Scheduler.schedule",
        when="once",
        culprit="any",
        beside="any",
        kinds=IN_STEP,
        health="failed or ok or degraded",
    ),
    Row(
        "update of the plan, once",
        "tritone.scheduler.scheduler:Scheduler.update",
        when="once",
        culprit="any",
        beside="any",
        kinds=IN_STEP,
    ),
]
ENDING = [
    Row(
        "detokenization",
        "tritone.engine.tasks.generation:TokenProcessor.process",
        on=GENERATION,
        kinds=OWN_THREAD,
        known_by="source",
        health="ok",
        times=1,
    ),
    Row(
        "CTC's text and times",
        "tritone.engine.tasks.ctc:CTCProcessor.process",
        on=("ctc",),
        kinds=OWN_THREAD,
        known_by="source",
        health="ok",
        times=1,
    ),
    Row(
        "labels",
        "tritone.engine.tasks.classification:LabelProcessor.process",
        on=("texts",),
        kinds=OWN_THREAD,
        known_by="source",
        health="ok",
        times=1,
    ),
]
TABLE = [*READING, *ENCODING, *DECODING, *STEPS, *ENDING]


@dataclass(frozen=True)
class CommandRow:
    """A fault in the command itself, at some call of a site.

    It ends the command, with a message where the fault can be foreseen (FORESEEN), and else with a traceback,
    as a bug does. Lines that are written stay whole, and a second run, without the fault, completes the file.
    """

    site: str
    target: str
    kinds: tuple[str, ...] = (*OWN_THREAD, "OSError")
    exit_code: int = 1
    call: int = 2
    to_folder: bool = False


_FILES = "tritone.engine.cli.outputs"
COMMAND_TABLE = [
    CommandRow("writing to the file", f"{_FILES}.append_file:_write"),
    CommandRow("formatting a line", f"{_FILES}.results_file:json_line"),
    CommandRow("beginning the file", f"{_FILES}.results_file:ResultsFile.begin", call=1),
    CommandRow("ending the file", f"{_FILES}.results_file:ResultsFile.finish", call=1),
    CommandRow("writing a result's file", f"{_FILES}.results_folder:replace_whole", to_folder=True),
    CommandRow("writing a document", f"{_FILES}.results_folder:document", to_folder=True),
    CommandRow("a line of the index", f"{_FILES}.append_file:AppendFile.append", to_folder=True),
    CommandRow("ending the index", f"{_FILES}.results_folder:ResultsFolder.finish", call=1, to_folder=True),
    CommandRow("progress", "rich.progress:Progress.advance"),
    CommandRow("loading the model", "tritone.engine.engine:load", ("MemoryError", "OSError"), 2, 1),
    CommandRow("starting a thread", "tritone.engine.worker:Worker.__init__", ("MemoryError",), 2, 1),
]
FORESEEN = ("MemoryError", "OSError")
