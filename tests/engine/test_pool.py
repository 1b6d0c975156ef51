"""Engines in processes of their own: one queue, results as of one engine, and the deaths of processes."""

import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from commands import records, tritone_process

import tritone
from tritone.engine.pool import _picklable

SOON = 60  # seconds
DEVICES = ["cpu", "cpu"]


@pytest.fixture(scope="module")
def wanted(ctc_checkpoint, waveforms):
    with tritone.Engine(ctc_checkpoint, device="cpu") as engine:
        return list(engine.transcribe(waveforms))


@pytest.fixture(scope="module")
def pool(ctc_checkpoint):
    with tritone.EnginePool(ctc_checkpoint, DEVICES) as pool:
        yield pool


def children(pool) -> list[int]:
    return [member.process.pid for member in pool._members]


def test_results_are_those_of_one_engine_in_order(pool, waveforms, wanted):
    assert list(pool.transcribe(waveforms)) == wanted
    assert len(set(children(pool))) == 2
    assert os.getpid() not in children(pool)


def test_bounds_of_what_waits_refuse_nothing_in_a_pool_and_its_results_have_times(
    ctc_checkpoint, waveforms, wanted
):
    config = tritone.EngineConfig(max_waiting=1, max_waiting_seconds=0.0)
    with tritone.EnginePool(ctc_checkpoint, ["cpu"], config=config) as pool:
        results = list(pool.transcribe(waveforms * 3, deadline=SOON))
        assert results == wanted * 3
        assert all(0 < result.timings.encode < result.timings.total for result in results)
        late = list(pool.transcribe(waveforms[:2], deadline=1e-6))
        assert [type(result.error) for result in late] == [tritone.DeadlineError] * 2


def test_sources_may_be_endless_and_a_call_may_be_left(pool, waveforms, wanted):
    endless = pool.transcribe(itertools.cycle(waveforms))
    assert list(itertools.islice(endless, 30)) == (wanted * 2)[:30]
    with pytest.raises(RuntimeError, match="one call at a time"):
        pool.transcribe(waveforms)
    endless.close()
    assert list(pool.transcribe(waveforms[:3])) == wanted[:3]


def test_a_call_that_is_left_cancels_its_recordings(pool, waveforms, wanted, tmp_path):
    soundfile.write(tmp_path / "long.wav", np.tile(np.concatenate(waveforms), 30), 16_000)
    results = pool.transcribe([waveforms[0], *[tmp_path / "long.wav"] * 200])
    next(results)
    results.close()
    reasons = {result.finish_reason for member in pool._members for result in _rest(member)}
    assert "cancelled" in reasons
    assert list(pool.transcribe(waveforms)) == wanted


def _rest(member):
    """Results that a process still sends."""
    while member.works:
        yield from (result for _, result in member.answers())


class Unreadable:
    """Source that can be sent, but not received."""

    def __reduce__(self):
        return int, ("no number",)


def test_a_source_that_cannot_move_fails_alone(pool, waveforms, wanted, tmp_path):
    with open(os.devnull, "rb") as file:
        results = list(pool.transcribe([waveforms[0], file, waveforms[1], Unreadable(), waveforms[2]]))
    assert [result.text for result in results] == [wanted[0].text, "", wanted[1].text, "", wanted[2].text]
    assert "give a path, bytes or an array" in str(results[1].error)
    assert "no number" in str(results[3].error)
    assert all(member.is_alive for member in pool._members)


def test_a_call_under_way_ends_with_an_error_where_the_pool_is_closed(ctc_checkpoint, waveforms):
    with tritone.EnginePool(ctc_checkpoint, DEVICES) as pool:
        results = pool.transcribe(waveforms * 9)
        next(results)
    with pytest.raises(RuntimeError, match="the pool is closed"):
        list(results)


def test_a_source_that_fails_has_its_error_and_the_others_go_on(pool, waveforms, wanted, tmp_path):
    good = tmp_path / "good.wav"
    soundfile.write(good, waveforms[0], 16_000, subtype="FLOAT")
    bad = tmp_path / "gone.wav"
    results = list(pool.transcribe([waveforms[0], bad, str(good), np.zeros(9, np.float32)]))
    assert [result.text for result in results] == [wanted[0].text, "", wanted[0].text, ""]
    assert isinstance(results[1].error, tritone.AudioError)
    assert "gone.wav" in str(results[1].error)
    assert "a recording of 9 samples is too short" in str(results[3].error)
    assert results[1].source == bad


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"num_beams": 2}, "num_beams=2 is for models that decode token by token"),
        ({"channels": "split"}, "channels 'split' takes an Engine on one device"),
        ({"short": "never"}, "short"),
    ],
)
def test_a_bad_option_is_refused_at_once(pool, waveforms, options, problem):
    with pytest.raises(ValueError, match=problem):
        pool.transcribe(waveforms, **options)


def test_recordings_of_a_process_that_dies_are_tried_on_another(ctc_checkpoint, waveforms, wanted):
    with tritone.EnginePool(ctc_checkpoint, DEVICES) as pool:
        results = pool.transcribe(waveforms * 3)
        first = next(results)
        os.kill(children(pool)[0], signal.SIGKILL)
        assert [first, *results] == wanted * 3
        assert list(pool.transcribe(waveforms)) == wanted  # by the one that is left
        results = pool.transcribe(itertools.cycle(waveforms))
        next(results)
        os.kill(children(pool)[1], signal.SIGKILL)
        errors = [result.error for result in _until_an_error(results)]
        assert "have died" in str(errors[-1])
        with pytest.raises(RuntimeError, match="closed, or its processes have died"):
            pool.transcribe(waveforms)


def _until_an_error(results):
    try:
        yield from results
    except RuntimeError as error:
        yield tritone.Transcription("", (), "error", 0.0, error=error)


def test_a_model_that_cannot_be_loaded_starts_no_process(tmp_path):
    with pytest.raises(FileNotFoundError):
        tritone.EnginePool(tmp_path / "gone", DEVICES)
    with pytest.raises(ValueError, match="no device"):
        tritone.EnginePool("digits", [])
    with pytest.raises(ValueError, match="device 'gpu' is none"):
        tritone.EnginePool("digits", ["cpu", "gpu"])


def test_errors_that_cannot_leave_a_process_keep_their_message():
    class Local(Exception):
        pass

    moved = _picklable(Local("it is broken"))
    assert (type(moved), str(moved)) == (RuntimeError, "Local: it is broken")
    error = ValueError("a value")
    assert _picklable(error) is error


def test_the_command_takes_several_devices(ctc_checkpoint, waveforms, tmp_path):
    for index, waveform in enumerate(waveforms[:6]):
        soundfile.write(tmp_path / f"{index}.wav", waveform, 16_000, subtype="FLOAT")
    arguments = ("transcribe", tmp_path, "--model", ctc_checkpoint, "--output")
    one = tritone_process(*arguments, tmp_path / "one.jsonl", "--device", "cpu")
    several = tritone_process(*arguments, tmp_path / "several.jsonl", "--device", "cpu,cpu")
    assert (one.returncode, several.returncode) == (0, 0)
    assert records(tmp_path / "several.jsonl") == records(tmp_path / "one.jsonl")
    refused = tritone_process(*arguments, tmp_path / "x.jsonl", "--device", "cpu,gpu")
    assert refused.returncode == 2
    assert "device 'gpu' is none" in refused.stderr


def test_an_interrupted_command_ends_with_all_its_processes(ctc_checkpoint, waveforms, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.tile(np.concatenate(waveforms), 600), 16_000)
    command = [sys.executable, "-m", "tritone", path, "--model", ctc_checkpoint, "--device", "cpu,cpu"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        until = time.monotonic() + SOON
        while len(pids := _children(process.pid)) < 2 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(2)
        os.killpg(process.pid, signal.SIGINT)
        begun = time.monotonic()
        _, stderr = process.communicate(timeout=SOON)
    assert process.returncode == 130
    assert "interrupted with 1 to go" in stderr or not stderr
    assert "Traceback" not in stderr
    assert time.monotonic() - begun < 5
    assert not _still_running(pids)


def _children(pid: int) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(child) for child in found.split()]


def test_processes_leave_with_the_pools_own(ctc_checkpoint):
    program = (
        "import time, tritone\n"
        "if __name__ == '__main__':\n"
        f"    pool = tritone.EnginePool({str(ctc_checkpoint)!r}, ['cpu', 'cpu'])\n"
        "    print(*(member.process.pid for member in pool._members), flush=True)\n"
        "    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        pids = [int(pid) for pid in process.stdout.readline().split()]
        process.kill()
    assert len(pids) == 2
    assert not _still_running(pids)


def _still_running(pids: list[int]) -> list[int]:
    """Processes that have not ended, given some time; the last to end is that of multiprocessing itself."""
    until = time.monotonic() + SOON
    while any(map(_is_running, pids)) and time.monotonic() < until:
        time.sleep(0.05)
    return [pid for pid in pids if _is_running(pid)]


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
