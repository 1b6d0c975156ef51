"""Scheduler of requests: takes events (`add`, `cancel`, `update`) and plans steps (`schedule`).

A request waits until all pages and slots that it can ever need are free, is admitted with all of them, runs,
and ends once: nothing admitted is ever evicted, so there is no deadlock to reason about. A plan lists only
changes from the previous one: a request that continues appears in no plan and costs no work here.

Python and NumPy without tensors, clock or I/O, so that tests check thousands of random histories in a
minute. One thread owns a scheduler.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from .block_allocator import PAGE_SIZE, Numbers, PageAllocator
from .line import Line, Owner
from .request import FinishReason


class CapacityError(ValueError):
    """Error for a request that needs more pages or slots than exist in total."""


@dataclass(frozen=True, slots=True)
class Demand:
    """Maximum resources of a request, in positions and hypotheses. Raises ValueError for a negative one."""

    encode_tokens: int  # encoder positions, which are also its cache positions for cross-attention
    decode_positions: int  # cache positions for self-attention that one hypothesis can write
    hypotheses: int  # beams, or returned samples; 0 for an encoder-only request
    # Computed once, since each admission asks for them several times.
    cross_pages: int = field(init=False)  # shared by all hypotheses; 0 for an encoder-only request
    pages_per_hypothesis: int = field(init=False)
    self_pages: int = field(init=False)  # of all hypotheses
    pages: int = field(init=False)  # in all

    def __post_init__(self) -> None:
        for name in ("encode_tokens", "decode_positions", "hypotheses"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"{name} is {value}; it must be 0 or more")
        own, keep = _pages(self.decode_positions), object.__setattr__
        keep(self, "cross_pages", _pages(self.encode_tokens) if self.hypotheses else 0)
        keep(self, "pages_per_hypothesis", own)
        keep(self, "self_pages", self.hypotheses * own)
        keep(self, "pages", self.cross_pages + self.self_pages)


class Admission:
    """Admission of a request to the batch, with the slots and pages that it owns until its release.

    Attributes:
        request_id: id of the request.
        encode_tokens: encoder positions.
        slots: sequence slots, one per hypothesis.
        pages: int32, all pages: first those of cross-attention, in the order of the encoder's positions, then
            those of each hypothesis, in the order of its positions.
        cross_blocks: number of pages of cross-attention.
        self_blocks: number of pages of each hypothesis.
    """

    __slots__ = ("cross_blocks", "encode_tokens", "pages", "request_id", "self_blocks", "slots")

    def __init__(self, request_id: int, demand: Demand, slots: tuple[int, ...], pages: Numbers) -> None:
        self.request_id = request_id
        self.encode_tokens = demand.encode_tokens
        self.slots = slots
        self.pages = pages
        self.cross_blocks = demand.cross_pages
        self.self_blocks = demand.pages_per_hypothesis

    @property
    def cross_pages(self) -> Numbers:
        """Pages of cross-attention, int32 [cross_blocks]."""
        return self.pages[: self.cross_blocks]

    @property
    def self_pages(self) -> Numbers:
        """Pages of the hypotheses, int32 [hypotheses, self_blocks]."""
        return self.pages[self.cross_blocks :].reshape(len(self.slots), self.self_blocks)


class Release(NamedTuple):
    """Release of an ended request, whose slots and pages may be another's from this step on."""

    request_id: int
    reason: FinishReason


@dataclass(frozen=True, slots=True)
class Step:
    """Plan of one step, to be executed in this order: release, encode the admitted requests, decode."""

    number: int  # 0, 1, 2, ...
    released: tuple[Release, ...]
    admitted: tuple[Admission, ...]
    decode_steps: int  # 0 where no hypothesis would be decoding


class Scheduler:
    """Scheduler that admits requests strictly by priority, then in turn between owners, then by arrival.

    num_pages and num_slots are the sizes of the cache (pages of 16 positions) and of the decode batch
    (hypotheses). encode_budget is the number of encoder positions that one step may admit; a longer request
    is admitted alone. Once pages or slots have run out, requests are admitted in every `admit_every`-th step
    only, so that more are encoded at once, unless none runs. Raises ValueError for a negative size, or for a
    budget or `admit_every` below 1.
    """

    def __init__(self, num_pages: int, num_slots: int, encode_budget: int, admit_every: int = 1) -> None:
        if admit_every < 1:
            raise ValueError(f"admit_every is {admit_every}; it must be 1 step or more")
        if num_pages < 0 or num_slots < 0 or encode_budget < 1:
            raise ValueError(
                f"num_pages={num_pages}, num_slots={num_slots}, encode_budget={encode_budget}: "
                "pages and slots must be 0 or more and the budget 1 or more"
            )
        self._pages = PageAllocator(num_pages)
        self._slots = PageAllocator(num_slots)
        self._encode_budget = encode_budget
        self._line = Line()
        self._running: dict[int, _Running] = {}
        self._ended: dict[int, _Ended] = {}  # since the last step, in the order of their ends
        self._next_step = 0
        self._admit_every = admit_every
        self._closed_until = 0  # number of the step from which on requests are admitted again

    def schedule(self, decode_steps: int = 1) -> Step:
        """Plan a step: release ended requests, then admit from the head of the queue while they fit.

        decode_steps is the number of tokens to decode for every running hypothesis.
        """
        if decode_steps < 1:
            raise ValueError(f"decode_steps is {decode_steps}; it must be 1 or more")
        released = self._release_ended()
        admitted = self._admit_waiting()
        number = self._next_step
        self._next_step += 1
        return Step(number, released, admitted, decode_steps if self.slots_used else 0)

    def add(self, request_id: int, demand: Demand, priority: int = 0, owner: int | None = None) -> None:
        """Add a request to the queue; a larger priority goes first, and the requests of an `owner` in turn.

        An id may be used again once the release of its last request has been planned. Raises ValueError
        before that, and CapacityError for a request that can never fit; both leave the scheduler unchanged.
        """
        if request_id in self._line or request_id in self._running or request_id in self._ended:
            raise ValueError(f"request id {request_id} is in use; choose another, or wait for its release")
        self._check_capacity(request_id, demand)
        self._line.join(request_id, demand, priority, owner)

    def cancel(self, request_id: int) -> bool:
        """Cancel a waiting or running request, which the next step releases; False where there is none."""
        if request_id in self._line:
            self._line.leave(request_id)
            self._ended[request_id] = _Ended(FinishReason.CANCELLED, None)
            return True
        return self._end(request_id, FinishReason.CANCELLED)

    def update(self, step: int, finished: Mapping[int, FinishReason]) -> None:
        """Report the requests that finished in the step with this number; the next step releases them.

        Reports may come late, repeatedly and out of order. Ids that were not running in that step, or have
        ended since (by cancellation or an earlier report), are ignored: the first end wins, and released
        requests need not be remembered. Raises ValueError for a step never planned.
        """
        if not 0 <= step < self._next_step:
            raise ValueError(f"step {step} was never planned; {self._next_step} steps were, counted from 0")
        for request_id, reason in finished.items():
            running = self._running.get(request_id)
            # admitted later than the step reported: the report is about an earlier request with the same id
            if running is not None and running.since <= step:
                self._end(request_id, reason)

    def end_running(self, reason: FinishReason) -> list[int]:
        """End all running requests, which the next step releases, and return their ids."""
        ids = list(self._running)
        for request_id in ids:
            self._end(request_id, reason)
        return ids

    def halve_encode_budget(self) -> int:
        """Halve the encode budget, for use after memory ran out, and return it."""
        self._encode_budget = max(1, self._encode_budget // 2)
        return self._encode_budget

    @property
    def has_work(self) -> bool:
        """Flag that is true while a request waits, runs, or has not been released."""
        return bool(self._line or self._running or self._ended)

    @property
    def waiting(self) -> int:
        """Number of requests in the queue."""
        return len(self._line)

    @property
    def running(self) -> int:
        """Number of requests admitted and not ended."""
        return len(self._running)

    @property
    def pages_used(self) -> int:
        """Number of pages owned by requests that are not released."""
        return self._pages.count - self._pages.free

    @property
    def slots_used(self) -> int:
        """Number of sequence slots owned by requests that are not released."""
        return self._slots.count - self._slots.free

    def _release_ended(self) -> tuple[Release, ...]:
        if not self._ended:
            return ()
        owned = [ended.admission for ended in self._ended.values() if ended.admission is not None]
        if owned:
            self._slots.give([slot for admission in owned for slot in admission.slots])
            self._pages.give(np.concatenate([admission.pages for admission in owned]))
        released = tuple(Release(request_id, ended.reason) for request_id, ended in self._ended.items())
        self._ended = {}
        return released

    def _admit_waiting(self) -> tuple[Admission, ...]:
        """Admit requests from the head of the queue while they fit; they take all slots and pages at once."""
        if not self._line or (self._next_step < self._closed_until and self._running):
            return ()
        chosen: list[tuple[int, Demand, Owner | None]] = []
        encode_tokens, pages, slots = 0, 0, 0
        while self._line:
            request_id, demand = self._line.head()
            if pages + demand.pages > self._pages.free or slots + demand.hypotheses > self._slots.free:
                self._closed_until = self._next_step + self._admit_every
                break  # even where a later one would fit: small requests must not starve a large one
            if chosen and encode_tokens + demand.encode_tokens > self._encode_budget:
                break
            chosen.append((request_id, demand, self._line.admit(request_id)))
            encode_tokens += demand.encode_tokens
            pages += demand.pages
            slots += demand.hypotheses
        return self._admit(chosen, slots, pages) if chosen else ()

    def _admit(
        self, chosen: list[tuple[int, Demand, Owner | None]], slots: int, pages: int
    ) -> tuple[Admission, ...]:
        """Admit requests that need so many slots and pages in all."""
        all_slots, all_pages = self._slots.take(slots).tolist(), self._pages.take(pages)
        slot, page, step, admitted = 0, 0, self._next_step, []
        for request_id, demand, owner in chosen:
            next_slot, next_page = slot + demand.hypotheses, page + demand.pages
            own = Admission(request_id, demand, tuple(all_slots[slot:next_slot]), all_pages[page:next_page])
            slot, page = next_slot, next_page
            self._running[request_id] = _Running(step, own, owner)
            admitted.append(own)
        return tuple(admitted)

    def _end(self, request_id: int, reason: FinishReason) -> bool:
        running = self._running.pop(request_id, None)
        if running is None:
            return False
        self._ended[request_id] = _Ended(reason, running.admission)
        self._line.end(running.owner)
        return True

    def _check_capacity(self, request_id: int, demand: Demand) -> None:
        if demand.pages > self._pages.count:
            raise CapacityError(
                f"request {request_id} needs {demand.pages} pages ({demand.cross_pages} for "
                f"{demand.encode_tokens} encoder positions, {demand.hypotheses} hypotheses x "
                f"{demand.pages_per_hypothesis} for {demand.decode_positions} decoder positions), but the "
                f"cache has {self._pages.count}; raise num_pages, or ask for fewer hypotheses, fewer new "
                "tokens or less audio"
            )
        if demand.hypotheses > self._slots.count:
            raise CapacityError(
                f"request {request_id} needs {demand.hypotheses} rows (hypotheses), but the decode batch has "
                f"{self._slots.count}; raise num_rows, or ask for fewer beams or returned sequences"
            )


class _Running(NamedTuple):
    since: int  # number of the step that admitted it
    admission: Admission
    owner: Owner | None


class _Ended(NamedTuple):
    reason: FinishReason
    admission: Admission | None  # None where it ended in the queue


def _pages(positions: int) -> int:
    return -(-positions // PAGE_SIZE)
