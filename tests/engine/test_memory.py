"""A long run must not take more memory than a short one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Recordings, and MiB that the resident set may grow by after the first tenth.
COUNT = int(os.environ.get("TRITONE_MEMORY_RECORDINGS", "20000"))
MAY_GROW = 50

# In a process of its own, whose memory is the engine's alone. It prints the resident set, in MiB, after the
# first tenth of the recordings and the largest one seen from there on.
CHILD = """
import sys
import numpy as np
import torch
import tritone
from tritone.engine.handle import in_order

folder, way, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
torch.set_num_threads(1)
rng = np.random.default_rng(0)

def recordings():
    for _ in range(count):
        yield (0.1 * rng.standard_normal(int(rng.uniform(0.1, 0.3) * 16_000))).astype(np.float32)

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024

def of_every_kind(engine, index, waveform):
    # streamed, with beams, drawn, with a priority; cancelled at some time or other; unreadable
    kinds = ({}, {"num_beams": 3}, {"do_sample": True, "seed": index}, {"priority": index % 3})
    source = "no such file.wav" if index % 50 == 7 else waveform
    handle = engine.submit(source, max_new_tokens=3, **kinds[index % 4])
    if index % 10 == 9:
        handle.cancel()
    return handle

with tritone.Engine(folder, device="cpu", num_rows=32) as engine:
    if way == "transcribe":
        results = engine.transcribe(recordings(), max_new_tokens=3)
    else:
        numbered = enumerate(recordings())
        results = in_order(numbered, lambda pair: of_every_kind(engine, *pair), 100)
    ended, first, most = 0, 0.0, 0.0
    for result in results:
        ended += 1
        if ended == count // 10:
            first = resident()
        elif ended > count // 10 and ended % 100 == 0:
            most = max(most, resident())
    stats = engine.stats()
    assert stats.finished + stats.failed + stats.cancelled == ended == count, stats
    assert way != "transcribe" or stats.finished == count, stats
print(first, most)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc"),
]


@pytest.mark.slow
@pytest.mark.parametrize("way", ["transcribe", "of every kind"])
def test_twenty_thousand_recordings_take_no_more_memory_than_two_thousand(checkpoint, way):
    """`TRITONE_MEMORY_RECORDINGS` in the environment sets another number."""
    run = subprocess.run(
        [sys.executable, "-c", CHILD, str(checkpoint), way, str(COUNT)],
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stderr
    first, most = map(float, run.stdout.split())
    print(f"{way}: {first:.1f} MiB after {COUNT // 10} recordings, {most:.1f} at most from there on")
    assert first > 0
    assert 0 < most < first + MAY_GROW
