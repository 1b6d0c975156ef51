"""Faults at random sites and times, over all engines of the process."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from fault_sites import Injector, injected
from fault_table import TABLE, Row

PHASE = 0.5  # seconds between changes of what fails
RATES = (0.02, 0.2, 1.0)  # share of a site's calls that fail in a phase


class Storm:
    """Faults that change twice a second: one site with one kind and rate, or none in a third of the time.

    Attributes:
        raised: number of faults by kind, and by site.
    """

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._rows: dict[str, Row] = {}
        for row in TABLE:
            self._rows.setdefault(row.target, row)
        self._injectors = {target: self._injector(target) for target in self._rows}
        self._active: str | None = None
        self._rate = 0.0
        self._over = threading.Event()
        self.by_kind: Counter[str] = Counter()
        self.by_site: Counter[str] = Counter()

    def _injector(self, target: str) -> Injector:
        def when(*_: object, **__: object) -> bool:
            if self._active != target or self._draw.random() >= self._rate:
                return False
            self.by_kind[self._injectors[target].kind] += 1
            self.by_site[self._rows[target].site] += 1
            return True

        return Injector(target, "Exception", when)

    @contextmanager
    def blowing(self) -> Iterator["Storm"]:
        """Wrap all sites, and change what fails until the context ends."""
        thread = threading.Thread(target=self._change, name="storm", daemon=True)
        with injected(*self._injectors.values()):
            thread.start()
            try:
                yield self
            finally:
                self._over.set()
                thread.join()
                self._active = None

    def _change(self) -> None:
        while not self._over.wait(PHASE):
            self._active = None
            if self._draw.random() < 0.67:
                row = self._draw.choice(list(self._rows.values()))
                self._injectors[row.target].kind = self._draw.choice(row.kinds)
                self._rate = self._draw.choice(RATES)
                self._active = row.target


def is_injected(error: BaseException | None) -> bool:
    """Check whether an error, or what it was raised from, is one of the storm's."""
    seen = 0
    while error is not None and seen < 20:
        message = str(error)
        # What NaN becomes; no request of the soak gives it by itself.
        if "injected" in message or "finite" in message or "NaN" in message:
            return True
        error, seen = error.__cause__ or error.__context__, seen + 1
    return False
