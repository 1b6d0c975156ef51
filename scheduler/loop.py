"""The generation loop: requests in, events out, one step at a time."""

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from .request import Event, Request, RequestOutput, Tokens
from .runner import ModelRunner
from .scheduler import Release, Scheduler
from .step_output import Pending, StepOutput

_log = logging.getLogger(__name__)

# Steps that a GPU is given ahead of the results that the host waits for: while it works on them, Python
# reads the results of earlier ones and plans the next.
_AHEAD_ON_GPU = 2


@dataclass(frozen=True, slots=True)
class LoopStats:
    """Where the loop stands: requests running and waiting, pages, and what has been done since it began."""

    running: int
    waiting: int
    pages_used: int
    pages_total: int
    steps: int
    tokens_generated: int  # decoded rows, beams counted each
    encoded_tokens: int
    graphs: int = 0  # decode steps recorded as CUDA graphs


class GenerationLoop:
    """Drives a runner by a scheduler's plans. Not thread-safe: one thread owns it.

    Args:
        runner: carries out the steps.
        encode_budget: encoder tokens admitted a step, so that long arrivals do not hold up decoding.
        ahead: steps launched before the results of the first are waited for; 0 waits for each at once. An
            end is noticed so many steps later. None is 2 on a GPU, 0 elsewhere.

    Raises:
        ValueError: for a negative number of steps.
    """

    def __init__(self, runner: ModelRunner, encode_budget: int = 4096, ahead: int | None = None) -> None:
        if ahead is None:
            ahead = _AHEAD_ON_GPU if runner.model.device.type == "cuda" else 0
        if ahead < 0:
            raise ValueError(f"ahead is {ahead}; it must be 0 or more steps")
        self._ahead = ahead
        self._pending: deque[tuple[int, dict[int, Request], Pending]] = deque()  # launched, oldest first
        self._runner = runner
        self._scheduler = Scheduler(runner.num_pages, runner.num_rows, encode_budget)
        self._requests: dict[int, Request] = {}

    def submit(self, request: Request) -> None:
        """Put a request in line.

        Raises:
            CapacityError: it could not run even alone.
            ValueError: inputs that the model cannot take, or an id in use.
        """
        self._scheduler.add(request.request_id, self._runner.demand(request), request.priority)
        self._requests[request.request_id] = request

    def cancel(self, request_id: int) -> bool:
        """End a request; its RequestOutput comes with the next step. False where it has ended already."""
        return self._scheduler.cancel(request_id)

    @property
    def has_work(self) -> bool:
        """Whether a step would do anything."""
        return self._scheduler.has_work

    def step(self) -> list[Event]:
        """Encode what can be admitted, decode one token of all that runs, and report what came of the step
        that was launched `ahead` steps before.

        A request's RequestOutput is its last event and comes exactly once.
        """
        plan = self._scheduler.schedule()
        admitted = {admission.request_id: self._requests[admission.request_id] for admission in plan.admitted}
        launched = self._runner.launch(plan, admitted)
        if launched.out_of_memory:
            budget = self._scheduler.halve_encode_budget()
            _log.warning(
                "memory ran out while encoding %d recordings at once; now at most %d encoder positions are",
                len(admitted),
                budget,
            )
        self._pending.append((plan.number, admitted, launched))
        events: list[Event] = [
            self._cancelled(release) for release in plan.released if self._is_open(release)
        ]
        while len(self._pending) > self._ahead:
            events += self._collect(*self._pending.popleft())
        if not self._scheduler.has_work:
            self._pending.clear()  # what is launched still is of requests that have been released
        return events

    def _collect(self, number: int, admitted: dict[int, Request], pending: Pending) -> list[Event]:
        """What the step with this number brought."""
        outcome = self._runner.collect(pending)
        for request_id in [*outcome.errors, *outcome.answers]:
            # Cancelled since, and the id used again perhaps.
            if self._requests.get(request_id) is not admitted[request_id]:
                del outcome.finished[request_id]
        self._scheduler.update(number, outcome.finished)
        events: list[Event] = [
            Tokens(request_id, tokens)
            for request_id, tokens in outcome.tokens.items()
            if request_id in self._requests
        ]
        return events + [
            self._completion(request_id, outcome)
            for request_id in outcome.finished
            if request_id in self._requests
        ]

    def stats(self) -> LoopStats:
        """Where the loop stands."""
        return LoopStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            pages_used=self._scheduler.pages_used,
            pages_total=self._runner.num_pages,
            steps=self._runner.steps,
            tokens_generated=self._runner.decoded_rows,
            encoded_tokens=self._runner.encoded_tokens,
            graphs=self._runner.graphs,
        )

    def warm_up(self, requests: Iterable[Request]) -> None:
        """Carry out requests whose results nobody wants, one after the other, and count from 0 afterwards:
        what the device has to get ready for the like of them is ready then.

        Raises:
            ValueError: what `submit` raises.
            RuntimeError: one that failed; or a loop that has work, whose results would be lost.
        """
        if self.has_work:
            raise RuntimeError("a loop is warmed up before there is work for it")
        for request in requests:
            self.submit(request)
            while self.has_work:
                for event in self.step():
                    if isinstance(event, RequestOutput) and event.error is not None:
                        raise RuntimeError(f"warming up failed: {event.error!r}") from event.error
        self._runner.count_anew()

    def _is_open(self, release: Release) -> bool:
        """Whether a release is news: what finished by itself was reported in the step that saw it finish."""
        return release.request_id in self._requests

    def _cancelled(self, release: Release) -> RequestOutput:
        del self._requests[release.request_id]
        return RequestOutput(release.request_id, (), release.reason)

    def _completion(self, request_id: int, outcome: StepOutput) -> RequestOutput:
        del self._requests[request_id]
        return RequestOutput(
            request_id,
            outcome.hypotheses.get(request_id, ()),
            outcome.finished[request_id],
            outcome.errors.get(request_id),
            outcome.scores.get(request_id, ()),
            outcome.answers.get(request_id),
        )
