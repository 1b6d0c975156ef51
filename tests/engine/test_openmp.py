"""The OpenMP threads that a thread lets go of."""

import os
import subprocess
import sys

import pytest

SCRIPT = """
import os
import time
import torch
from tritone.engine.openmp import _libgomp, release_team

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
values = torch.ones(1_000_000)
release_team()  # where there is nothing to let go of
before = threads()
values + values
with_team = threads()
release_team()
end = time.monotonic() + 10  # on a busy machine a thread that has ended is listed for a moment
while threads() > before and time.monotonic() < end:
    time.sleep(0.01)
without = threads()
again = values + values
print(_libgomp() is not None, before, with_team, without, float(again.sum()))
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux tells them")
def test_a_team_is_let_go_of_and_comes_back_when_needed():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    found, before, with_team, without, total = done.stdout.split()
    assert total == "2000000.0"
    if found == "False":
        pytest.skip("this torch does not use libgomp")
    assert int(with_team) == int(before) + 2
    assert int(without) == int(before)


ONE_CORE = """
import os
import threading
import torch
from tritone.engine.openmp import _libgomp, one_core

def threads():
    return len(os.listdir("/proc/self/task"))

torch.set_num_threads(3)
values = torch.ones(1_000_000)
before = threads()

def count():
    with one_core():
        values + values
        print(_libgomp() is not None, threads() - before, torch.get_num_threads())
        other = threading.Thread(target=lambda: print(torch.get_num_threads()))
        other.start()
        other.join()
    print(torch.get_num_threads())

thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads as Linux tells them")
def test_a_thread_uses_one_core_for_a_while_and_others_as_many_as_before():
    done = subprocess.run([sys.executable, "-c", ONE_CORE], capture_output=True, text=True, check=True)
    (found, started, within), (other,), (behind,) = map(str.split, done.stdout.splitlines())
    assert (other, behind) == ("3", "3")
    if found == "False":
        pytest.skip("this torch does not use libgomp")
    assert (started, within) == ("1", "1")  # the thread itself
