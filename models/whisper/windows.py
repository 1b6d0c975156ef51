"""Transcription of a recording window by window, as transformers 5.23 and openai-whisper define it.

`sequential_windows` is a generator that knows no model: it yields what to decode next and receives the
result, so that windows of many recordings share the batches of one loop. The next window begins at the last
pair of times that the window before has, and a window whose text looks wrong is decoded again at a higher
temperature.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

FRAME_SECONDS = 0.01  # of a frame of features
_FRAMES_PER_TIME = 2  # timestamp tokens count encoder positions, of two frames each
TIME_SECONDS = _FRAMES_PER_TIME * FRAME_SECONDS
_MAX_CONDITION_TEMPERATURE = 0.5  # from which on a text is no context for the next window


@dataclass(frozen=True, slots=True)
class WindowOptions:
    """Options of all windows of one recording.

    Args:
        start_tokens: tokens that begin each window's transcript: start, language, task, and
            <|notimestamps|> where no times are wanted.
        first_time: first timestamp token, of time 0.
        end_token: end token.
        previous_token: token before the text of earlier windows.
        temperatures: temperatures to try in turn, while a text looks wrong; 0 is greedy or beam search.
        compression_ratio_threshold: compression ratio from which on a text looks wrong; None for no limit.
        logprob_threshold: mean log-probability below which a text looks wrong; None for no limit.
        no_speech_threshold: probability of no speech above which a window is skipped if its text looks wrong
            by its log-probability; None for none.
        condition_on_prev_tokens: True gives earlier windows' text as context.
        prompt_ids: tokens of a text given as context, `previous_token` first; empty for none.
        prompt_all_windows: True gives prompt_ids to every window in place of earlier text.
        hotwords: tokens of words to expect, before the context of every window, as faster-whisper has them.
        max_previous_tokens: most tokens of context, hotwords included.
        window_frames: frames of a window.
    """

    start_tokens: tuple[int, ...]
    first_time: int
    end_token: int
    previous_token: int
    temperatures: tuple[float, ...] = (0.0,)
    compression_ratio_threshold: float | None = None
    logprob_threshold: float | None = None
    no_speech_threshold: float | None = None
    condition_on_prev_tokens: bool = False
    prompt_ids: tuple[int, ...] = ()
    prompt_all_windows: bool = False
    hotwords: tuple[int, ...] = ()
    max_previous_tokens: int = 223
    window_frames: int = 3000


@dataclass(frozen=True, slots=True)
class Window:
    """Part of a recording to decode.

    Attributes:
        start: first frame.
        frames: number of frames that the recording has from there, at most those of a window.
        prompt_tokens: tokens before the first generated one.
        temperature: temperature to sample at; 0 for greedy or beam search.
    """

    start: int
    frames: int
    prompt_tokens: tuple[int, ...]
    temperature: float


@dataclass(frozen=True, slots=True)
class Decoded:
    """Result of decoding a window.

    Attributes:
        tokens: generated tokens, with the end token where there is one.
        score: mean log-probability of these, or beam search's score.
        no_speech_probability: probability that the window has no speech; None where it was not asked for.
        language_token: language of the prompt, where it was chosen by the model.
        token_log_probs: log-probability of each of the tokens; None where they were not asked for.
    """

    tokens: tuple[int, ...]
    score: float
    no_speech_probability: float | None = None
    language_token: int | None = None
    token_log_probs: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Segment:
    """Part of a transcript between two times.

    Attributes:
        start, end: seconds from the recording's beginning.
        tokens: its tokens, times included.
        window: window that it was decoded in.
        decoded: result of that window.
        tokens_from: index of its first token in that window's result.
        compression_ratio: of that window's tokens or text.
    """

    start: float
    end: float
    tokens: tuple[int, ...]
    window: Window
    decoded: Decoded
    tokens_from: int
    compression_ratio: float

    @property
    def token_log_probs(self) -> tuple[float, ...] | None:
        """Log-probability of each of the tokens; None where they were not asked for."""
        of_window, begin = self.decoded.token_log_probs, self.tokens_from
        return None if of_window is None else of_window[begin : begin + len(self.tokens)]


Ratio = Callable[[Sequence[int]], float]  # compression ratio of a window's tokens


def sequential_windows(
    frames: int, options: WindowOptions, ratio: Ratio, segments: list[Segment] | None = None
) -> Generator[Window, Decoded, list[Segment]]:
    """Windows of a recording, each where the one before it ends.

    Args:
        frames: number of frames of the recording.
        options: options of all windows.
        ratio: compression ratio of a window's tokens.
        segments: list that gains each window's segments as it ends; a new one by default.

    Yields:
        Windows to decode, some repeatedly at rising temperatures.

    Returns:
        Segments of the transcript, in order.
    """
    start = 0
    segments = [] if segments is None else segments
    conditioned = options.condition_on_prev_tokens
    while start < frames:
        length = min(frames - start, options.window_frames)
        prompt = window_prompt(segments, options, conditioned)
        for temperature in options.temperatures:
            window = Window(start, length, prompt, temperature)
            decoded = yield window
            compression = ratio(decoded.tokens)
            looks_wrong, is_silent = _judge(decoded, compression, options)
            if not looks_wrong:
                break
        conditioned = options.condition_on_prev_tokens and window.temperature < _MAX_CONDITION_TEMPERATURE
        if is_silent:
            start += length
            continue
        found, advance = window_segments(window, decoded, options, compression)
        segments += found
        start += advance or length  # a pair of times at 0, from which transformers would go on for ever
    return segments


def window_prompt(segments: Sequence[Segment], options: WindowOptions, conditioned: bool) -> tuple[int, ...]:
    """Prompt of a window after `segments`: context if there is any, and the start tokens."""
    given = options.prompt_ids
    if given[:1] == (options.previous_token,):
        given = given[1:]
    earlier = [] if options.prompt_all_windows or not given else [given]
    earlier += [_without_second_time(segment.tokens, options) for segment in segments]
    context: tuple[int, ...] = ()
    if conditioned and earlier:
        before = options.prompt_ids if options.prompt_all_windows and given else (options.previous_token,)
        context = tuple(token for tokens in earlier for token in tokens)
    elif options.hotwords and not options.prompt_ids:
        before = (options.previous_token,)
    else:
        before = options.prompt_ids
    hotwords = options.hotwords[: options.max_previous_tokens]
    room = options.max_previous_tokens - len(hotwords)
    context = context[-room:] if room else ()
    return (*before[:1], *hotwords, *before[1:], *context, *options.start_tokens)


def _without_second_time(tokens: tuple[int, ...], options: WindowOptions) -> tuple[int, ...]:
    """Tokens of a segment without the second of two times at its end."""
    doubled = len(tokens) > 2 and tokens[-2] >= options.first_time
    return tokens[:-1] if doubled else tokens


def _judge(decoded: Decoded, compression: float, options: WindowOptions) -> tuple[bool, bool]:
    """Pair of flags: the text looks wrong, and the window has no speech."""
    limit, floor = options.compression_ratio_threshold, options.logprob_threshold
    repetitive = limit is not None and compression > limit
    unlikely = floor is not None and decoded.score < floor
    silence, probability = options.no_speech_threshold, decoded.no_speech_probability
    if unlikely and silence is not None and probability is not None and probability > silence:
        return False, True
    return repetitive or unlikely, False


def window_segments(
    window: Window, decoded: Decoded, options: WindowOptions, compression: float
) -> tuple[list[Segment], int]:
    """Split a window's tokens at pairs of times.

    Returns:
        The segments, and the number of frames to the next window: to the last pair of times, since what is
        behind it may have been cut; or the whole window.
    """
    tokens = decoded.tokens[:-1] if decoded.tokens[-1:] == (options.end_token,) else decoded.tokens
    offset = window.start * FRAME_SECONDS
    is_time = [token >= options.first_time for token in tokens]
    pairs = [place for place in range(1, len(tokens)) if is_time[place - 1] and is_time[place]]
    ends_in_one_time = is_time[-2:] == [False, True]

    def segment(start: float, end: float, begin: int, stop: int) -> Segment:
        return Segment(offset + start, offset + end, tokens[begin:stop], window, decoded, begin, compression)

    def seconds(token: int) -> float:
        return (token - options.first_time) * TIME_SECONDS

    if not pairs:
        end = window.frames // _FRAMES_PER_TIME * TIME_SECONDS
        times = [token for token in tokens if token >= options.first_time]
        if times and times[-1] != options.first_time:
            end = seconds(times[-1])
        return [segment(0.0, end, 0, len(tokens))], window.frames
    if ends_in_one_time:  # no speech behind it
        stops, last = [*pairs, len(tokens)], -1
        advance = window.frames
    else:
        # The last segment keeps the second time too, which tells that no text follows.
        stops, last = [*pairs[:-1], pairs[-1] + 1], -2
        advance = (tokens[pairs[-1] - 1] - options.first_time) * _FRAMES_PER_TIME
    segments = []
    for index, (begin, stop) in enumerate(zip([0, *stops], stops, strict=False)):
        end_token = tokens[stop - 1] if index + 1 < len(stops) else tokens[stop + last]
        segments.append(segment(seconds(tokens[begin]), seconds(end_token), begin, stop))
    return segments, advance
