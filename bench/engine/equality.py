"""Equal bits however a model runs: plain, with graphs and overlap, alone and in a batch.

    python -m bench.engine.equality [--device cuda|cpu] [--output FOLDER]

Speech2Text small with random weights; recordings of many lengths, of which a few arrive in each step. Prints
PASS or FAIL for each way to run it, with its seconds; with --output also writes equality.json. Token ids and
scores must be equal to the bit to those of plain steps, and logits and hidden states to those of each
recording alone. Ends with 1 if any is not.

    python -m bench.engine.equality --quick     a smoke run: tiny model, 5 recordings
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import count as count_up
from itertools import product
from typing import Any

import torch
from torch import Tensor

from tritone.kernels.runtime.packing import cumulative, spans
from tritone.scheduler.request import Request, RequestOutput

from ..common.command import engine_parser, parse_engine
from ..common.machine import about_machine, synchronize
from ..common.output import write_json
from ..common.recognizers import pages_of
from ..common.workload import Recording, Recordings, build_model

ARRIVALS = 3  # requests that arrive in a step
SEARCHES: dict[str, dict[str, Any]] = {
    "greedy": {},
    "5 beams": {"num_beams": 5},
    "sampling": {"do_sample": True, "top_k": 50, "top_p": 0.9, "seed": 7},
    "greedy with rules": {"repetition_penalty": 1.2, "no_repeat_ngram_size": 3},
}
WAYS: dict[str, dict[str, Any]] = {
    "graphs": {"graphs": True, "overlap": False},
    "overlap": {"graphs": False, "overlap": True},
    "graphs and overlap": {"graphs": True, "overlap": True},
}
PLAIN: dict[str, Any] = {"graphs": False, "overlap": False, "ahead": 0}


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: its name, the first difference ("" for none), and the seconds of its run."""

    name: str
    difference: str
    seconds: float

    def __str__(self) -> str:
        note = f": {self.difference}" if self.difference else ""
        return f"{'FAIL' if self.difference else 'PASS'} {self.name}, {self.seconds:.2f} s{note}"


class Subject:
    """Model and recordings, run in one way or another."""

    def __init__(self, size: str, device: torch.device, count: int, stretch: float) -> None:
        self.device = device
        self.model = build_model(size, device, torch.float16 if device.type == "cuda" else torch.float32)
        self.recordings = Recordings().like_librispeech(count, stretch)
        self._numbers = count_up()

    def loop(self, **ways: Any) -> Any:
        """Generation loop with room for all recordings, each with 5 beams."""
        pages = sum(pages_of(self.model, recording, 5) for recording in self.recordings)
        return self.model.generation_loop(num_pages=pages, num_rows=5 * len(self.recordings), **ways)

    def outputs(
        self, loop: Any, recordings: Sequence[Recording], *, keep_scores: bool = False, **options: Any
    ) -> list[RequestOutput]:
        """Outputs of recordings that arrive `ARRIVALS` a step, in their order.

        Raises:
            Exception: the error of a request.
        """
        numbers = [next(self._numbers) for _ in recordings]
        requests = [
            Request(
                number,
                recording.features.to(self.model.dtype),
                self.model.resolve_options(
                    max_new_tokens=recording.tokens, min_new_tokens=recording.tokens // 2, **options
                ),
                keep_scores=keep_scores,
            )
            for number, recording in zip(numbers, recordings, strict=True)
        ]
        found: dict[int, RequestOutput] = {}
        while len(found) < len(recordings):
            for request in requests[:ARRIVALS]:
                loop.submit(request)
            del requests[:ARRIVALS]
            for event in loop.step():
                if isinstance(event, RequestOutput):
                    if event.error is not None:
                        raise event.error
                    found[event.request_id] = event
        while loop.has_work:
            loop.step()
        synchronize(self.device)
        return [found[number] for number in numbers]

    @torch.inference_mode()
    def encoded(self, recordings: Sequence[Recording]) -> list[Tensor]:
        """Hidden states of each recording, of one packed batch."""
        features = torch.cat([one.features for one in recordings]).to(self.device, self.model.dtype)
        offsets = cumulative([len(one.features) for one in recordings], self.device)
        hidden, cu_tokens = self.model.encode(features, offsets)
        return [hidden[start:end] for start, end in spans(cu_tokens)]


def main(given: list[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    parser = engine_parser(__doc__, None, "a tiny model and 5 recordings")
    arguments = parse_engine(parser, given)
    size, count, stretch = ("tiny", 5, 0.05) if arguments.quick else ("small", 48, 0.6)
    device = torch.device(arguments.device)
    subject = Subject(size, device, count, stretch)
    # Without a GPU, steps are planned for graphs and launched one by one, and nothing overlaps.
    ways = WAYS if device.type == "cuda" else {"graphs": WAYS["graphs"]}
    checks: list[Check] = []
    for check in (*alone_or_not(subject), *plain_or_not(subject, ways)):
        checks.append(attempt(*check))
        print(checks[-1], flush=True)
        if arguments.output:
            found = {"about": about_machine(device), "checks": [asdict(one) for one in checks]}
            write_json(arguments.output / "equality.json", found)
    return 1 if any(check.difference for check in checks) else 0


def attempt(name: str, compare: Callable[[], str]) -> Check:
    """Carry out a comparison; an error counts as a difference."""
    begin = time.perf_counter()
    try:
        difference = compare()
    except Exception as error:
        difference = f"{type(error).__name__}: {error}"
    return Check(name, difference, time.perf_counter() - begin)


def alone_or_not(subject: Subject) -> Iterator[tuple[str, Callable[[], str]]]:
    """Comparisons of recordings in a batch with each alone: hidden states, and logits of every step."""
    few = subject.recordings[:8]

    def hidden_states() -> str:
        batch = subject.encoded(few)
        return first_difference(
            [torch.equal(one, subject.encoded([few[i]])[0]) for i, one in enumerate(batch)]
        )

    def logits(search: str) -> str:
        options = {**SEARCHES[search], "keep_scores": True}
        batch = subject.outputs(subject.loop(), few, **options)
        alone = [subject.outputs(subject.loop(), [one], **options)[0] for one in few]
        return first_difference([same(*pair) for pair in zip(batch, alone, strict=True)])

    yield "alone and in a batch, hidden states", hidden_states
    for search in ("greedy", "5 beams"):
        yield f"alone and in a batch, scores of every step, {search}", lambda search=search: logits(search)


def plain_or_not(
    subject: Subject, ways: dict[str, dict[str, Any]]
) -> Iterator[tuple[str, Callable[[], str]]]:
    """Comparisons of each way of running with plain steps; each way runs twice, to replay its graphs."""
    plain: dict[str, list[RequestOutput]] = {}

    def compare(search: str, way: str) -> str:
        if search not in plain:
            loop = subject.loop(**PLAIN)
            plain[search] = subject.outputs(loop, subject.recordings, **SEARCHES[search])
        loop = subject.loop(**ways[way])
        for _ in range(2):
            found = subject.outputs(loop, subject.recordings, **SEARCHES[search])
            equal = [same(*pair) for pair in zip(found, plain[search], strict=True)]
            if not all(equal):
                return first_difference(equal)
        return ""

    for search, way in product(SEARCHES, ways):
        yield f"{way} and plain, {search}", lambda search=search, way=way: compare(search, way)


def same(one: RequestOutput, other: RequestOutput) -> bool:
    """True if two outputs have equal tokens, and equal scores to the bit."""
    return one.hypotheses == other.hypotheses and all(
        torch.equal(*pair) for pair in zip(one.scores, other.scores, strict=True)
    )


def first_difference(equal: Sequence[bool]) -> str:
    """Words for the recordings that are not equal; "" if all are."""
    wrong = [number for number, one in enumerate(equal) if not one]
    return f"{len(wrong)} of {len(equal)} recordings differ, first number {wrong[0]}" if wrong else ""


if __name__ == "__main__":
    sys.exit(main())
