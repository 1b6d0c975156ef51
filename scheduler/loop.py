"""Generation loop: schedules requests, runs them step by step, and reports their tokens and outputs."""

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter

from .faults import DeviceLostError, as_exception, without_traceback
from .request import Event, FinishReason, GenerationOptions, Request, RequestOutput
from .runner import ModelRunner, Progress
from .scheduler import Scheduler, Step
from .step_output import StepOutput

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LoopStats:
    """Statistics of a generation loop: current requests and cache pages, and counts since its start."""

    running: int
    waiting: int
    pages_used: int
    pages_total: int
    steps: int
    tokens_generated: int  # tokens of all hypotheses
    encoded_tokens: int
    graphs: int = 0  # decode steps recorded as CUDA graphs
    degraded: str | None = None  # last fault that the loop survived other than a bad input


class GenerationLoop:
    """Generation loop: runs a scheduler's plans on a model runner. Not thread-safe: one thread owns it.

    Args:
        runner: model runner that executes the steps.
        encode_budget: maximum encoder positions admitted per step, so that long inputs do not delay decoding.
        ahead: number of steps launched before the results of the first are waited for; the end of a request
            is noticed that many steps late. 0 waits for each step at once. By default the configuration's
            `ahead_on_gpu` on a GPU, 0 elsewhere.

    Raises:
        ValueError: a negative `ahead`.
    """

    def __init__(self, runner: ModelRunner, encode_budget: int = 4096, ahead: int | None = None) -> None:
        on_gpu = runner.model.device.type == "cuda"
        if ahead is None:
            ahead = runner.config.ahead_on_gpu if on_gpu else 0
        if ahead < 0:
            raise ValueError(f"ahead is {ahead}; it must be 0 or more steps")
        self._ahead = ahead
        self._launched: deque[StepOutput] = deque()  # oldest first
        self._runner = runner
        admit_every = runner.config.admit_every_on_gpu if on_gpu else 1
        self._scheduler = Scheduler(runner.num_pages, runner.num_slots, encode_budget, admit_every)
        self._requests: dict[int, Request] = {}  # requests without a RequestOutput so far
        self._failed_steps = 0  # in a row, each as a whole
        self._degraded: str | None = None

    def submit(self, request: Request) -> None:
        """Add a request to the scheduler's queue.

        Raises:
            CapacityError: the request could not run even alone.
            ValueError: the model cannot take the inputs, or the id is in use.
        """
        demand = self._runner.demand(request)
        self._scheduler.add(request.request_id, demand, request.priority, request.owner)
        self._requests[request.request_id] = request

    def cancel(self, request_id: int) -> bool:
        """Cancel a request, whose RequestOutput comes with the next step; False where it has ended."""
        return self._scheduler.cancel(request_id)

    @property
    def has_work(self) -> bool:
        """Flag that is true while any request waits, runs or has not been released."""
        return self._scheduler.has_work

    def step(self) -> list[Event]:
        """Launch one step and return the events of the step that was launched `ahead` steps before.

        A step encodes the requests that can be admitted and decodes one token of every running hypothesis. A
        request's RequestOutput is its last event and comes exactly once.

        An error while encoding, decoding or reading results is repeated in halves and ends only the requests
        that fail alone. An error outside them ends all running requests.

        Raises:
            DeviceLostError: the device cannot be used any more.
            RuntimeError: several steps in a row have failed as a whole, see `RunnerConfig`.
        """
        plan = self._scheduler.schedule()
        events: list[Event] = []
        for release in plan.released:
            if self._requests.pop(release.request_id, None) is not None:  # has no RequestOutput so far
                events.append(RequestOutput(release.request_id, (), release.reason))
        try:
            self._launch(plan)
            while len(self._launched) > self._ahead:
                events += self._collect(self._launched.popleft())
        except (KeyboardInterrupt, SystemExit, DeviceLostError):
            raise
        except BaseException as error:
            events += self._fail_running(as_exception(without_traceback(error)))
        else:
            if plan.admitted or plan.decode_steps:
                self._failed_steps = 0
        if not self._scheduler.has_work:
            self._launched.clear()  # all of its requests have been released
        return events

    def _launch(self, plan: Step) -> None:
        admitted = {admission.request_id: self._requests[admission.request_id] for admission in plan.admitted}
        if admitted:
            now = perf_counter()
            for request in admitted.values():
                request.times.admitted = now
        launched = self._runner.launch(plan, admitted)
        self._launched.append(launched)
        for running in launched.unwanted:
            self._scheduler.cancel(running.request.request_id)
        if launched.out_of_memory:
            budget = self._scheduler.halve_encode_budget()
            self._degrade(
                f"memory ran out while encoding {len(admitted)} recordings at once; now at most {budget} "
                "encoder positions are"
            )
        if launched.degraded is not None:
            self._degrade(launched.degraded)

    def _degrade(self, reason: str) -> None:
        _log.warning("%s", reason)
        self._degraded = reason

    def _fail_running(self, error: Exception) -> list[Event]:
        """End all running requests with the error of a step that failed as a whole; later ones may run.

        Raises:
            RuntimeError: too many steps in a row have failed so.
        """
        self._failed_steps += 1
        if self._failed_steps >= self._runner.config.max_failed_steps:
            raise RuntimeError(
                f"{self._failed_steps} steps in a row have failed as a whole, the last one with "
                f"{type(error).__name__}: {error}"
            ) from error
        failed = self._scheduler.end_running(FinishReason.ERROR)
        self._degrade(
            f"a step failed as a whole, and with it {len(failed)} requests: {type(error).__name__}: {error}"
        )
        self._runner.reset()
        self._launched.clear()
        for request_id in failed:
            del self._requests[request_id]
        return [RequestOutput(request_id, (), FinishReason.ERROR, error) for request_id in failed]

    def _collect(self, launched: StepOutput) -> list[Event]:
        events = self._runner.collect(launched)
        completions = [event for event in events if isinstance(event, RequestOutput)]
        finished = {completion.request_id: completion.finish_reason for completion in completions}
        self._scheduler.update(launched.number, finished)
        for request_id in finished:
            del self._requests[request_id]
        return events

    def stats(self) -> LoopStats:
        """Current statistics of the loop."""
        return LoopStats(
            running=self._scheduler.running,
            waiting=self._scheduler.waiting,
            pages_used=self._scheduler.pages_used,
            pages_total=self._runner.num_pages,
            steps=self._runner.steps,
            tokens_generated=self._runner.decoded_tokens,
            encoded_tokens=self._runner.encoded_tokens,
            graphs=self._runner.graphs,
            degraded=self._degraded,
        )

    def record_steps(self, demands: Sequence[tuple[GenerationOptions, int]], progress: Progress) -> None:
        """Record decode steps ahead of need; arguments as of `ModelRunner.record_steps`.

        Raises:
            RuntimeError: the loop has work, whose steps would be lost.
        """
        if self.has_work:
            raise RuntimeError("steps are recorded before there is work for a loop")
        self._runner.record_steps(demands, progress)

    def warm_up(self, requests: Iterable[Request]) -> None:
        """Run requests one after the other, so that their kernels are compiled, and discard the results.

        Decode steps of their sizes are recorded too. Counts of steps and tokens are reset afterwards.

        Raises:
            ValueError: an error of `submit`.
            RuntimeError: a request failed; or the loop has work, whose results would be lost.
        """
        if self.has_work:
            raise RuntimeError("a loop is warmed up before there is work for it")
        for request in requests:
            self.submit(request)
            while self.has_work:
                for event in self.step():
                    if isinstance(event, RequestOutput) and event.error is not None:
                        raise RuntimeError(f"warming up failed: {event.error!r}") from event.error
        self._runner.reset_counts()
