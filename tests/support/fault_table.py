"""Table of faults: for each site and kind, what must happen to the culprit and to all else.

    when       "culprit": each time that the culprit is worked on; "once": the first time, for any request;
               "always".
    culprit    "error": its own result has the error; "same": its result is as it is alone.
    beside     the same of the other requests of the call.
    health     state of the engine afterwards. Later requests, with the fault gone, give what they give alone,
               and `close` ends, whatever it is; a "failed" engine refuses them with the reason.
    exit_code  of the command for these sources; None where it is not run. Results that are the same are
               written, whatever it is, and there is no traceback.

docs/errors.md has a short version for readers.
"""

from dataclasses import dataclass, field

ORDINARY = ("Exception", "MemoryError")
ALL = (*ORDINARY, "OutOfMemory", "BaseException", "StopIteration", "SystemExit")
# In the caller's own thread, where SystemExit is the caller's.
OWN_THREAD = (*ORDINARY, "BaseException", "StopIteration")
GENERATION = ("greedy", "beams")
DIGITS = "tritone.models.speech_to_text.model:Speech2TextForConditionalGeneration"


@dataclass(frozen=True)
class Row:
    """One site with its kinds of faults and their outcome."""

    site: str
    target: str  # module:name of the function that fails
    on: tuple[str, ...] = ("greedy",)
    kinds: tuple[str, ...] = ALL
    when: str = "culprit"
    known_by: str = "here"  # how the site tells the culprit: "here", "source", "request", "duration"
    culprit: str = "error"
    beside: str = "same"
    health: str = "ok"
    exit_code: int | None = 1
    note: str = field(default="", compare=False)


INPUTS = "tritone.engine.tasks.inputs"
READING = [
    Row("copy at submission", f"{INPUTS}:Recordings.snapshot", kinds=OWN_THREAD, known_by="source"),
    Row(
        "copy at submission of a text",
        f"{INPUTS}:Texts.snapshot",
        on=("texts",),
        kinds=OWN_THREAD,
        known_by="source",
    ),
    Row("reading a recording", f"{INPUTS}:load_audio", on=("greedy", "ctc"), known_by="source"),
    Row("decoding a file", "soundfile:SoundFile.read", known_by="source"),
    Row("resampling", "soxr:ResampleStream.resample_chunk", when="always"),  # no other is resampled
    Row(
        "tokenizing",
        "tritone.models.bert.tokenizer:BertTokenizer.__call__",
        on=("texts",),
        known_by="source",
    ),
    Row(
        "resolving the options",
        "tritone.engine.tasks.generation:GenerationTask.resolve",
        known_by="duration",
    ),
    Row(
        "admission", "tritone.scheduler.loop:GenerationLoop.submit", on=("greedy", "ctc"), known_by="request"
    ),
]
ENCODING = [
    Row(
        "front end",
        "tritone.models.speech_to_text.feature_extractor:Speech2TextFeatureExtractor.extract_packed",
        kinds=(*ALL, "NaN"),
    ),
    Row("encode", f"{DIGITS}.encode", on=GENERATION, kinds=(*ALL, "NaN")),
    Row("cross-attention keys and values", f"{DIGITS}.cross_key_values"),
    Row("cross-attention store", "tritone.scheduler.cache.paged_cache:PagedCache.store_cross"),
    Row(
        "predict, CTC", "tritone.models.wav2vec2.ctc:Wav2Vec2ForCTC.predict", on=("ctc",), kinds=(*ALL, "NaN")
    ),
    Row(
        "predict, classifier",
        "tritone.models.bert.model:BertForSequenceClassification.predict",
        on=("texts",),
        kinds=(*ALL, "NaN"),
    ),
]
DECODING = [
    Row("decode", f"{DIGITS}.decode", on=GENERATION, kinds=(*ALL, "NaN")),
    Row("decode, once", f"{DIGITS}.decode", on=GENERATION, when="once", culprit="same", exit_code=0),
    Row("selection", "tritone.scheduler.decode_step:select", on=GENERATION),
    Row("selection, once", "tritone.scheduler.decode_step:select", when="once", culprit="same", exit_code=0),
    Row("state advance", "tritone.scheduler.state:DecodeState.advance", on=GENERATION),
    Row("decode of every request", f"{DIGITS}.decode", when="always", beside="error", health="degraded"),
]
STEPS = [  # of the loop, for all requests of a step at once
    Row("batch layout, once", "tritone.scheduler.runner:Batch.of", when="once", culprit="same", exit_code=0),
    Row(
        "joining the batch, once",
        "tritone.scheduler.state:DecodeState.admit",
        when="once",
        culprit="same",
        exit_code=0,
    ),
    Row(
        "launch, once",
        "tritone.scheduler.runner:ModelRunner.launch",
        when="once",
        culprit="any",
        beside="any",
    ),
    Row(
        "host copy, once",
        "tritone.scheduler.step_output:HostCopy.values",
        when="once",
        culprit="any",
        beside="any",
    ),
    Row(
        "collect, once",
        "tritone.scheduler.runner:ModelRunner.collect",
        when="once",
        culprit="any",
        beside="any",
    ),
    Row(
        "plan, once",
        "tritone.scheduler.scheduler:Scheduler.schedule",
        when="once",
        culprit="any",
        beside="any",
    ),
    Row(
        "update of the plan, once",
        "tritone.scheduler.scheduler:Scheduler.update",
        when="once",
        culprit="any",
        beside="any",
    ),
]
ENDING = [
    Row(
        "detokenization",
        "tritone.engine.tasks.generation:TokenProcessor.process",
        on=GENERATION,
        kinds=OWN_THREAD,
        known_by="source",
    ),
    Row(
        "CTC's text and times",
        "tritone.engine.tasks.ctc:CTCProcessor.process",
        on=("ctc",),
        kinds=OWN_THREAD,
        known_by="source",
    ),
    Row(
        "labels",
        "tritone.engine.tasks.classification:LabelProcessor.process",
        on=("texts",),
        kinds=OWN_THREAD,
        known_by="source",
    ),
]
TABLE = [*READING, *ENCODING, *DECODING, *STEPS, *ENDING]
