"""Random histories of the queue of jobs: places of sessions and of other jobs."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from tritone.engine.handle import Handle
from tritone.engine.jobs import Job, JobQueue

MAX_SECONDS = 300.0


@dataclass(eq=False)
class Entry:
    """State of a job in the test: a session of so many independent requests, or one request."""

    job: Job
    requests: int  # that are yet to be asked for
    open: list[int] = field(default_factory=list)  # keys of those under way
    wants: bool = False


class History:
    """Worker of one thread: takes places as reading threads do, and ends requests in any order."""

    def __init__(self, places: int) -> None:
        self.places, self.jobs = places, {}
        self.queue = JobQueue(self.jobs, places, MAX_SECONDS)
        self.entries: dict[Job, Entry] = {}
        self.waiting: list[Entry] = []
        self.keys = iter(range(10**6))

    def submit(self, requests: int) -> None:
        job = Job(Handle("recording", None, lambda handle: False), None)
        self.jobs[job.handle] = job
        self.entries[job] = entry = Entry(job, requests)
        self.waiting.append(entry)
        self.queue.put(job)
        self.go_on()

    def go_on(self) -> None:
        while (job := self.queue.take(prepared=False)) is not None:
            entry = self.waiting.pop(0)
            assert entry.job is job, "a job was overtaken"
            job.session = object()
            self.ask(entry)
        while (job := self.queue.next_wanting()) is not None:
            before = job.places
            self.ask(self.entries[job])
            assert job.places > before or not self.entries[job].requests
        self.check()

    def ask(self, entry: Entry) -> None:
        """Ask for requests while there are places, as `Reading._advance` does."""
        entry.wants = False
        while not entry.open or self.queue.take_more(entry.job):
            if not entry.requests:
                self.queue.give_back(entry.job)
                return
            entry.requests -= 1
            key = next(self.keys)
            entry.open.append(key)
            self.queue.charge(entry.job, key, 30.0)
        entry.wants = entry.requests > 0

    def end_request(self, choice: int) -> None:
        running = [(entry, key) for entry in self.entries.values() for key in entry.open]
        if not running:
            return
        entry, key = running[choice % len(running)]
        entry.open.remove(key)
        self.queue.give_back(entry.job, key)
        if entry.open or entry.requests:
            self.ask(entry)
        if not entry.open:
            self.end(entry)
        self.go_on()

    def cancel(self, choice: int) -> None:
        if self.entries:
            entry = list(self.entries.values())[choice % len(self.entries)]
            if entry in self.waiting:
                self.waiting.remove(entry)
            self.end(entry)
            self.go_on()

    def end(self, entry: Entry) -> None:
        del self.entries[entry.job], self.jobs[entry.job.handle]
        self.queue.free_place(entry.job)

    def check(self) -> None:
        taken = [entry for entry in self.entries.values() if entry not in self.waiting]
        assert all(entry.job.places == len(entry.open) for entry in taken)
        assert self.queue.free_requests == self.places - sum(entry.job.places for entry in taken)
        audio = 30.0 * sum(len(entry.open) for entry in taken)
        assert audio < MAX_SECONDS + 30 * self.places
        room = self.queue.free_requests > 0 and audio < MAX_SECONDS
        assert not (self.waiting and room), "a job waits beside a free place"
        spare = not self.waiting and room and self.queue.free_requests > self.places // 4
        for entry in taken:
            assert not (entry.wants and spare), "a session waits beside a free place"

    def drain(self) -> None:
        for _ in range(10**4):
            if not self.entries:
                break
            self.end_request(0)
        assert not self.entries, "a job is starved"
        assert self.queue.free_requests == self.places
        assert self.queue._free_seconds == MAX_SECONDS


STEPS = st.one_of(
    st.tuples(st.just("submit"), st.sampled_from([1, 1, 1, 3, 20, 60])),
    st.tuples(st.just("end_request"), st.integers(0, 99)),
    st.tuples(st.just("end_request"), st.integers(0, 99)),
    st.tuples(st.just("cancel"), st.integers(0, 9)),
)


@settings(max_examples=300, deadline=None, database=None)
@given(places=st.integers(1, 20), steps=st.lists(STEPS, max_size=60))
def test_no_history_loses_a_place_starves_a_job_or_leaves_one_waiting_beside_a_place(places, steps):
    history = History(places)
    for step, number in steps:
        getattr(history, step)(number)
    history.drain()


@settings(max_examples=100, deadline=None, database=None)
@given(
    sizes=st.lists(st.integers(30, 200), min_size=2, max_size=5),
    choices=st.lists(st.integers(0, 99), min_size=40, max_size=40),
)
def test_sessions_with_more_requests_than_places_come_to_share_them_evenly(sizes, choices):
    history = History(9)  # in sessions' hands: so many fit the seconds
    for size in sizes:
        history.submit(size)
    for choice in choices:
        if any(not entry.wants for entry in history.entries.values()):
            return
        places = [entry.job.places for entry in history.entries.values()]
        history.end_request(choice)
        after = [entry.job.places for entry in history.entries.values()]
        assert max(after) - min(after) <= max(max(places) - min(places), 1), "shares drift apart"
