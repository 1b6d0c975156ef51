"""A stand-in for the generation loop under an engine's worker, whose every step a test controls."""

import threading
from collections.abc import Callable
from types import SimpleNamespace

from tritone.engine.handle import Handle
from tritone.engine.jobs import Job
from tritone.engine.tasks.generation import TokenProcessor
from tritone.engine.tasks.inputs import Inputs
from tritone.engine.worker import Worker
from tritone.scheduler.loop import LoopStats
from tritone.scheduler.request import FinishReason, GenerationOptions, Hypothesis, RequestOutput, Tokens

OPTIONS = GenerationOptions(max_length=9, decoder_start_token_id=0)
SOON = 10  # seconds; nothing here takes a tenth of it


class StandInLoop:
    """A loop with one token a step for each request, 1, 2, 3, ... up to its inputs' value."""

    def __init__(self) -> None:
        self.requests = {}
        self.ended = []
        self.order = []
        self.error = None
        self.refuse = None
        self.steps = 0
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Event()
        self.threads = set()

    def submit(self, request):
        self.threads.add(threading.current_thread().name)
        if self.refuse:
            raise self.refuse
        assert request.request_id not in self.requests
        self.requests[request.request_id] = [request, 0]
        self.order.append(request.inputs)

    def cancel(self, request_id):
        self.threads.add(threading.current_thread().name)
        if self.requests.pop(request_id, None) is None:
            return False
        self.ended.append(RequestOutput(request_id, (), FinishReason.CANCELLED))
        return True

    @property
    def has_work(self):
        return bool(self.requests or self.ended)

    def step(self):
        self.threads.add(threading.current_thread().name)
        self.entered.set()
        assert self.go.wait(SOON)
        self.steps += 1
        if self.error:
            raise self.error
        events, self.ended = self.ended, []
        for request_id, entry in list(self.requests.items()):
            entry[1] += 1
            request, count = entry
            if request.stream:
                events.append(Tokens(request_id, (count,)))
            if count == request.inputs:
                del self.requests[request_id]
                ids = tuple(range(count + 1))
                events.append(
                    RequestOutput(request_id, (Hypothesis(ids, -1.0, FinishReason.STOP),), FinishReason.STOP)
                )
        return events

    def stats(self):
        return LoopStats(
            running=len(self.requests),
            waiting=0,
            pages_used=0,
            pages_total=0,
            steps=self.steps,
            tokens_generated=0,
            encoded_tokens=0,
        )


def spell(token_ids: list[int], skip_special_tokens: bool) -> str:
    return " ".join(str(token) for token in token_ids if token)


SPELLER = SimpleNamespace(decode=spell, clean_up_tokenization_spaces=False)


def submit(
    worker: Worker,
    tokens: int = 3,
    *,
    prepare: Callable | None = None,
    priority: int = 0,
    stream: bool = True,
    prepared: bool = False,
    bounded: bool = True,
    **fields: float,
) -> Handle:
    """Submit a request for so many tokens, of 2 s of audio; its text is their numbers. Fields are a Job's."""
    handle = Handle(tokens, TokenProcessor(SPELLER), worker.cancel)
    job = Job(handle, prepare or (lambda: (Inputs(tokens, 2.0), OPTIONS)), priority, stream, **fields)
    if prepared:
        job.prepared = Inputs(tokens, 2.0), OPTIONS
    worker.submit(job, bounded=bounded)
    return handle
