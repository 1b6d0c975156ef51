"""Parameters of a transcription: form fields, checked against the model, as options of its engine."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...scheduler.model_protocol import Task
from .errors import ApiError
from .fields import TRANSLATIONS, VAD_SETTINGS, read_fields
from .models import ServedModel, ServedModels
from .settings import ServerSettings

_TIMED = ("verbose_json", "srt", "vtt")  # formats with times
_STREAMED = ("json", "text")


@dataclass(frozen=True, slots=True)
class Parameters:
    """Parameters of a transcription or translation.

    Args:
        model: model that is asked.
        format: format of the answer.
        translates: True for a translation into English.
        stream: True for an answer of events.
        words, segments: times that verbose_json has.
        log_probs: True for log-probabilities of tokens.
        language: language that the client gave, a code or a name.
        temperature: temperature of the draws; 0 for none.
        options: options of the engine's `submit`.
        fields: names of the fields that were given.
    """

    model: ServedModel
    format: str
    translates: bool
    stream: bool
    words: bool
    segments: bool
    log_probs: bool
    language: str | None
    temperature: float
    options: dict[str, Any]
    fields: Sequence[str]


def read_parameters(fields: Sequence[tuple[str, str]], endpoint: str, models: ServedModels) -> Parameters:
    """Parameters of a form.

    Args:
        fields: names and values of its fields.
        endpoint: TRANSCRIPTIONS or TRANSLATIONS.
        models: models of the server.

    Raises:
        ApiError: a field that is unknown, refused, out of range, or not for the model.
    """
    values = read_fields(fields, endpoint)
    model = models.find(values.get("model"))
    translates = endpoint == TRANSLATIONS
    _check_model(model, translates)
    wanted = values.get("response_format", "json")
    granularities = values.get("timestamp_granularities", [])
    words = "word" in granularities
    stream = values.get("stream", False)
    log_probs = "logprobs" in values.get("include", [])
    if granularities and wanted != "verbose_json":
        message = f"timestamp_granularities[] are of verbose_json, and response_format is {wanted}"
        raise _refusal("timestamp_granularities[]", f"{message}; give response_format=verbose_json")
    if words and not model.times_words:
        message = f"{model.name} has no times of words, which Whisper and CTC models have; ask for segment"
        raise _refusal("timestamp_granularities[]", message)
    if stream and wanted not in _STREAMED:
        message = f"a stream has text alone, and response_format is {wanted}"
        raise _refusal("stream", f"{message}; give response_format=json, or stream=false")
    if log_probs:
        _check_log_probs(model, wanted, values.get("num_beams", 1))
    options = _options(model, values)
    if translates:
        options["task"] = "translate"
    if model.is_whisper and wanted in _TIMED:
        options["return_timestamps"] = True
    if model.is_whisper and words:
        options["word_timestamps"] = True
    if log_probs:
        options["token_log_probs"] = True
    return Parameters(
        model=model,
        format=wanted,
        translates=translates,
        stream=stream,
        words=words,
        segments=not granularities or "segment" in granularities,
        log_probs=log_probs,
        language=values.get("language"),
        temperature=values.get("temperature", 0.0),
        options=options,
        fields=[*values],
    )


def bounds(settings: ServerSettings) -> dict[str, Any]:
    """Options of the engine that the server's settings give."""
    return {} if settings.deadline is None else {"deadline": settings.deadline}


def _check_model(model: ServedModel, translates: bool) -> None:
    """Refuse a model that does not do what the endpoint is for."""
    if not model.transcribes:
        raise _refusal("model", f"{model.name} is a classifier; send its requests to /v1/classify")
    if translates and not model.translates:
        message = f"{model.name} does not translate into English, which a multilingual Whisper does"
        raise _refusal("model", f"{message}; ask another model, or /v1/audio/transcriptions")


def _check_log_probs(model: ServedModel, wanted: str, num_beams: int) -> None:
    """Refuse log-probabilities of tokens where there are none."""
    if wanted != "json":
        raise _refusal("include[]", f"logprobs are of json, and response_format is {wanted}; give json")
    if model.task is not Task.GENERATION:
        message = f"{model.name} takes its best path, whose letters have no logprobs; leave it out"
        raise _refusal("include[]", message)
    if num_beams > 1:
        raise _refusal("include[]", f"logprobs are of one beam, and num_beams is {num_beams}; give 1")


def _options(model: ServedModel, values: dict[str, Any]) -> dict[str, Any]:
    """Options of the engine that fields of any endpoint give."""
    passed = ("language", "prompt", "hotwords", "num_beams", "seed", "vad_filter")
    options = {name: values[name] for name in passed if name in values}
    for name in ("prompt", "hotwords"):
        if name in options and not model.is_whisper:
            raise _refusal(name, f"{name} is of Whisper, which {model.name} is not; leave it out")
    if "prompt" in options:
        options["prompt_ids"] = _prompt_ids(model, options.pop("prompt"), options.get("hotwords", ""))
    temperature = values.get("temperature", 0.0)
    if temperature:
        if model.task is Task.GENERATION:
            options |= {"temperature": temperature, "top_k": 0}
        else:
            message = f"temperature is {temperature}, and {model.name} takes its best path without a draw"
            raise _refusal("temperature", f"{message}; give 0, or leave it out")
        if not model.is_whisper:
            options["do_sample"] = True
    strategy = values.get("chunking_strategy")
    if strategy is not None:
        _check_chunking(strategy)
        if model.is_whisper:  # others cut at pauses in any case
            options["windows"] = "pauses"
        if strategy["type"] == "server_vad":
            options["vad_filter"] = True
    return options


def _prompt_ids(model: ServedModel, prompt: str, hotwords: str) -> list[int]:
    """Token ids of a prompt for Whisper: the last ones for which it has room, as OpenAI takes them."""
    tokenizer = model.tokenizer
    try:
        first, *ids = tokenizer.get_prompt_ids(prompt, None)
        before = len(tokenizer.get_prompt_ids(hotwords, None)) - 1 if hotwords else 0
    except ValueError as error:
        raise _refusal("prompt", str(error)) from None
    room = max(model.engine.engine.model.max_length // 2 - 1 - before, 0)
    return [first, *ids[len(ids) - min(room, len(ids)) :]]


def _check_chunking(strategy: dict[str, Any]) -> None:
    """Refuse settings of a chunking strategy that the voice activity detector does not have."""
    for name, value in strategy.items():
        if name == "type":
            continue
        param = f"chunking_strategy[{name[:64]}]"
        if name not in VAD_SETTINGS:
            known = ", ".join(["type", *VAD_SETTINGS])
            raise ApiError(400, f"{param} is unknown; server_vad has {known}", param, "unknown_parameter")
        if isinstance(value, bool) or value != VAD_SETTINGS[name]:
            message = f"{param} is {str(value)[:64]}, and the detector here has {VAD_SETTINGS[name]}"
            raise ApiError(400, f"{message}; give that, or leave it out", param, "unsupported_value")


def _refusal(param: str, message: str) -> ApiError:
    return ApiError(400, message, param, "unsupported_value")
