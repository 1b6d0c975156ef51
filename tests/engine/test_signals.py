"""Signals: no wake-up is lost, and nothing is left locked."""

import asyncio
import threading
import time
from collections import deque

from stand_in_loop import SOON

from tritone.engine.signals import Signal


def test_a_condition_that_holds_needs_no_signal_and_a_timeout_says_that_it_does_not():
    signal = Signal()
    assert signal.wait_for(lambda: True, 0)
    start = time.monotonic()
    assert not signal.wait_for(lambda: False, 0.05)
    assert 0.04 < time.monotonic() - start < SOON
    assert not signal.wait_for(lambda: False, -1)
    assert signal._waiters == []


def test_a_timeout_may_be_longer_than_a_lock_can_wait():
    signal, done = Signal(), threading.Event()
    thread = threading.Thread(target=lambda: signal.wait_for(done.is_set, 1e20))
    thread.start()
    done.set()
    signal.notify_all()
    thread.join(SOON)
    assert not thread.is_alive()


def test_each_of_many_items_reaches_one_of_many_threads():
    signal, items, taken = Signal(), deque(), []
    closed = threading.Event()

    def take():
        while signal.wait_for(lambda: items or closed.is_set()):
            try:
                taken.append(items.popleft())
            except IndexError:
                if closed.is_set():
                    return

    threads = [threading.Thread(target=take) for _ in range(5)]
    for thread in threads:
        thread.start()
    for number in range(3000):
        items.append(number)
        signal.notify()
        if number % 100 == 0:
            time.sleep(0.001)
    until = time.monotonic() + SOON
    while len(taken) < 3000 and time.monotonic() < until:
        time.sleep(0.001)
    assert sorted(taken) == list(range(3000))
    closed.set()
    signal.notify_all()
    for thread in threads:
        thread.join(SOON)
    assert signal._waiters == []


def test_a_waiting_thread_that_needs_no_signal_passes_it_on():
    signal, second = Signal(), threading.Event()
    calls = []

    def condition():
        if not calls:
            calls.append(1)
            return False
        signal.notify()  # comes to this thread, which is just leaving
        return True

    other = threading.Thread(target=lambda: signal.wait_for(second.is_set))
    done = threading.Thread(target=lambda: signal.wait_for(condition))
    done.start()
    done.join(0.05)
    other.start()
    time.sleep(0.05)
    second.set()
    signal.notify()
    done.join(SOON)
    other.join(SOON)
    assert not other.is_alive()


def test_no_task_misses_a_signal_and_a_loop_is_woken_once_for_many():
    signal, counts, calls = Signal(), [0] * 50, []

    async def follow(number):
        seen = 0
        while seen < 200:
            await signal.wait_in_loop(lambda seen=seen: counts[number] > seen)
            seen = counts[number]

    def count():
        for _ in range(200):
            for number in range(50):
                counts[number] += 1
            signal.notify_all()

    async def main():
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: (calls.append(args), call(*args))
        thread = threading.Thread(target=count)
        tasks = [asyncio.create_task(follow(number)) for number in range(50)]
        await asyncio.sleep(0)
        thread.start()
        await asyncio.wait_for(asyncio.gather(*tasks), SOON)
        thread.join(SOON)

    asyncio.run(main())
    assert signal._waiters == []
    assert 0 < len(calls) < 2000  # of 10,000 notified waiters


def test_a_cancelled_task_waits_no_longer():
    signal = Signal()

    async def main():
        task = asyncio.create_task(signal.wait_in_loop(lambda: False))
        await asyncio.sleep(0)
        assert len(signal._waiters) == 1
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())
    assert signal._waiters == []
