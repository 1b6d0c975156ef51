"""Line of waiting requests: by priority, then in turn between their owners, then by arrival."""

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .scheduler import Demand

_SLACK = 64  # outdated turns that a heap may always hold

Owner = tuple[int, int]  # priority and number: requests of one owner in two priorities share no turn


class Line:
    """Queue of waiting requests by descending priority; any may leave at any time.

    Within a priority, the owner with the fewest running requests goes first, among equals the one whose first
    waiting request arrived first. So the requests of one owner share the device evenly with those of others,
    and each owner has its turn: without a running request it is overtaken by none that arrives later. A
    request without an owner is one of its own, so that these go by arrival alone.

    Every operation takes about as long among many requests as among few.
    """

    def __init__(self) -> None:
        self._waiting: dict[int, _Waiting] = {}
        self._owners: dict[Owner, _Owner] = {}
        # Heap of turns: descending priority, the owner's running requests, arrival, id. A turn is outdated
        # once its request is gone or its owner's count has changed, which has another turn then.
        self._turns: list[tuple[int, int, int, int]] = []
        self._arrivals = count()

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, request_id: int) -> bool:
        return request_id in self._waiting

    def head(self) -> tuple[int, "Demand"]:
        """Id and demand of the first request; the line must not be empty."""
        while not self._is_current(turn := self._turns[0]):
            heappop(self._turns)
        return turn[3], self._waiting[turn[3]].demand

    def join(self, request_id: int, demand: "Demand", priority: int, owner: int | None) -> None:
        """Add a request."""
        key = None if owner is None else (priority, owner)
        self._waiting[request_id] = _Waiting(demand, priority, next(self._arrivals), key)
        if key is None:
            self._add_turn(request_id, 0)
            return
        found = self._owners.setdefault(key, _Owner())
        found.waiting[request_id] = None
        if len(found.waiting) == 1:
            self._add_turn(request_id, found.running)

    def leave(self, request_id: int) -> None:
        """Remove a request that waits."""
        key = self._waiting.pop(request_id).owner
        if key is not None:
            del self._owners[key].waiting[request_id]
            self._renew(key)

    def admit(self, request_id: int) -> Owner | None:
        """Remove a request that runs from now on; returns its owner, for `end`."""
        key = self._waiting.pop(request_id).owner
        if key is not None:
            found = self._owners[key]
            del found.waiting[request_id]
            found.running += 1
            self._renew(key)
        return key

    def end(self, owner: Owner | None) -> None:
        """Note the end of an owner's running request."""
        if owner is not None:
            self._owners[owner].running -= 1
            self._renew(owner)

    def _renew(self, key: Owner) -> None:
        """Give an owner that has changed its turn, or forget it without requests."""
        found = self._owners[key]
        if found.waiting:
            self._add_turn(next(iter(found.waiting)), found.running)
        elif not found.running:
            del self._owners[key]

    def _add_turn(self, request_id: int, running: int) -> None:
        one = self._waiting[request_id]
        heappush(self._turns, (-one.priority, running, one.arrival, request_id))
        if len(self._turns) > 2 * len(self._waiting) + _SLACK:
            self._turns = [turn for turn in self._turns if self._is_current(turn)]
            heapify(self._turns)

    def _is_current(self, turn: tuple[int, int, int, int]) -> bool:
        _, running, arrival, request_id = turn
        one = self._waiting.get(request_id)
        if one is None or one.arrival != arrival:
            return False
        if one.owner is None:
            return True
        owner = self._owners[one.owner]
        return owner.running == running and next(iter(owner.waiting)) == request_id


class _Waiting(NamedTuple):
    demand: "Demand"
    priority: int
    arrival: int
    owner: Owner | None


class _Owner:
    __slots__ = ("running", "waiting")

    def __init__(self) -> None:
        self.running = 0
        # OrderedDict finds its first entry at once after many removals; dict walks over removed entries
        self.waiting: OrderedDict[int, None] = OrderedDict()
