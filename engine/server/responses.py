"""Answers with a transcription: json, verbose_json, text, srt and vtt as OpenAI's API has them."""

import math
from typing import Any

from fastapi.responses import JSONResponse, PlainTextResponse, Response

from ...models.whisper.compression import text_compression_ratio
from ...models.whisper.languages import LANGUAGES, language_code
from ..outputs import Segment, Span, Transcription
from .log_probs import log_probs
from .parameters import Parameters

UNKNOWN_LANGUAGE = "unknown"  # of a model with one language, whose checkpoint does not name it
_FRAME_RATE = 100  # of Whisper's frames, in which OpenAI counts the seek of a segment
_AUDIO_TOKENS_PER_SECOND = 10  # as OpenAI counts those of its models


def answer(result: Transcription, parameters: Parameters) -> Response:
    """Answer with a result in the format that was asked for."""
    match parameters.format:
        case "text":
            return PlainTextResponse(f"{encodable(result.text)}\n")
        case "srt":
            return PlainTextResponse(result.to_srt())
        case "vtt":
            return Response(result.to_vtt(), media_type="text/vtt; charset=utf-8")
        case "verbose_json":
            return JSONResponse(verbose(result, parameters))
    body: dict[str, Any] = {"text": encodable(result.text)}
    if parameters.log_probs:
        body["logprobs"] = log_probs(result, parameters.model)
    return JSONResponse(body | {"usage": duration_usage(result)})


def encodable(text: str) -> str:
    """Text with question marks for surrogates, which a damaged vocabulary may have, and UTF-8 has not."""
    return text.encode("utf-8", "replace").decode()


def verbose(result: Transcription, parameters: Parameters) -> dict[str, Any]:
    """JSON object of verbose_json."""
    body: dict[str, Any] = {
        "task": "translate" if parameters.translates else "transcribe",
        "language": language_name(result, parameters),
        "duration": round(result.duration, 3),
        "text": encodable(result.text),
    }
    if parameters.segments:
        segments = result.segments or _whole(result)
        body["segments"] = [_segment(index, one, parameters) for index, one in enumerate(segments)]
    if parameters.words:
        body["words"] = [_word(one) for one in result.words or ()]
    return body | {"usage": duration_usage(result)}


def language_name(result: Transcription, parameters: Parameters) -> str:
    """English name of the text's language in small letters, as OpenAI has it."""
    if parameters.translates:
        return "english"
    given = result.language or parameters.language
    if given is None:
        return UNKNOWN_LANGUAGE
    try:
        return LANGUAGES[language_code(given)]
    except ValueError:  # of another family
        return given


def duration_usage(result: Transcription) -> dict[str, Any]:
    """Usage of an answer: seconds of audio."""
    return {"type": "duration", "seconds": round(result.duration, 3)}


def token_usage(result: Transcription, parameters: Parameters) -> dict[str, Any]:
    """Usage of a stream, whose type has tokens alone: ten for a second of audio, the prompt's, the text's."""
    audio = math.ceil(result.duration * _AUDIO_TOKENS_PER_SECOND)
    text = len(parameters.options.get("prompt_ids", ()))
    output = len(result.token_ids)
    return {
        "type": "tokens",
        "input_tokens": audio + text,
        "input_token_details": {"text_tokens": text, "audio_tokens": audio},
        "output_tokens": output,
        "total_tokens": audio + text + output,
    }


def _whole(result: Transcription) -> tuple[Segment, ...]:
    """All text as one segment; none without text."""
    if not result.text.strip():
        return ()
    return (Segment(result.text, 0.0, result.duration, result.token_ids, result.score or 0.0),)


def _segment(index: int, segment: Segment, parameters: Parameters) -> dict[str, Any]:
    """JSON object of a segment; numbers that only Whisper has are those of a segment that is right."""
    text, ratio = encodable(segment.text), segment.compression_ratio
    temperature = segment.temperature
    return {
        "id": index,
        "seek": round((segment.window_start or 0.0) * _FRAME_RATE),
        "start": round(segment.start, 3),
        "end": round(segment.end, 3),
        "text": text,
        "tokens": list(segment.token_ids),
        "temperature": parameters.temperature if temperature is None else temperature,
        "avg_logprob": segment.score,
        "compression_ratio": text_compression_ratio(text.strip()) if ratio is None else ratio,
        "no_speech_prob": segment.no_speech_probability or 0.0,
    }


def _word(word: Span) -> dict[str, Any]:
    return {"word": encodable(word.text), "start": round(word.start, 3), "end": round(word.end, 3)}
