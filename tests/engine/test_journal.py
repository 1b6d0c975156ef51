"""Journals of recordings in windows: what they bring back, and what they never do."""

import errno
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from factories import write_ctc_checkpoint

import tritone
from tritone.engine import journal as journals
from tritone.engine.journal import Journal, JournaledSession
from tritone.engine.journal_files import journal_path, remove_journals
from tritone.engine.session import Session, SessionCall, SessionRequest
from tritone.models.whisper.word_times import TokenTimes
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import FinishReason, GenerationOptions, Hypothesis, RequestOutput

ORIGIN = {"model": "one"}
OPTIONS = GenerationOptions(max_length=9)
REQUESTS = 4  # of each piece


class Pieces(Session):
    """Three pieces, each with requests in turn; a call follows every second one. Their parts are all seen."""

    def __init__(self, options=OPTIONS):
        self._options = options
        self._left = dict.fromkeys(range(3), 0)
        self._to_ask, self._calls, self.seen = list(self._left), [], []

    @property
    def is_complete(self):
        return not self._left

    def next_request(self):
        if self._calls:
            key, encoded = self._calls.pop(0)
            return SessionCall(key, lambda: TokenTimes((float(encoded.sum()), 0.1 + 0.2)))
        if not self._to_ask:
            return None
        key = self._to_ask.pop(0)
        samples = torch.arange(5.0) + key + 10 * self._left[key]
        return SessionRequest(key, samples, self._options, keep_encoded=self._left[key] % 2 == 0)

    def receive(self, key, output):
        self.seen.append((key, _facts(output)))
        if isinstance(output, RequestOutput) and output.encoded is not None:
            self._calls.append((key, output.encoded))
            return []
        self._left[key] += 1
        if self._left[key] < REQUESTS:
            self._to_ask.append(key)
        else:
            del self._left[key]
        return []


def _facts(output):
    if not isinstance(output, RequestOutput):
        return output
    tensors = {name: value.tolist() for name, value in (output.predictions or {}).items()}
    return output.hypotheses, output.finish_reason, output.no_speech_probability, tensors


def answer(request):
    """The loop's answer, a function of the request."""
    total = float(request.inputs.sum())
    return RequestOutput(
        7,
        (Hypothesis((2, int(total)), -total / 3, FinishReason.LENGTH, -total, (-total / 7,)),),
        FinishReason.LENGTH,
        no_speech_probability=1 / (1 + total),
        encoded=request.inputs.clone() if request.keep_encoded else None,
        predictions={"token_ids": request.inputs.long(), "log_probabilities": request.inputs / 3},
    )


def play(path, stop_after=10**6, seed=0, options=OPTIONS, origin=ORIGIN):
    """Run a session until so many outputs; returns what each piece has seen and the requests computed."""
    session = JournaledSession(pieces := Pieces(options), Journal(path, origin))
    pick, under_way, computed = random.Random(seed), [], 0
    while not session.is_complete:
        while (request := session.next_request()) is not None:
            under_way.append(request)
        request = under_way.pop(pick.randrange(len(under_way)))
        if isinstance(request, SessionRequest):
            if computed == stop_after:
                break
            computed += 1
            session.receive(request.key, answer(request))
        else:
            session.receive(request.key, request.compute())
    return {key: [seen for one, seen in pieces.seen if one == key] for key in range(3)}, computed


@pytest.mark.parametrize("stop", range(12))
@pytest.mark.parametrize("seed", range(3))
def test_an_interrupted_session_goes_on_to_the_same_end_and_computes_less(tmp_path, stop, seed):
    whole, requests = play(tmp_path / "whole")
    assert requests == 3 * REQUESTS
    path = tmp_path / "folder" / "journal"
    play(path, stop, seed)
    resumed, again = play(path, seed=seed + 1)
    assert resumed == whole
    # The last output of a piece is computed again where a call that needs its encoder output is missing.
    assert requests - stop <= again <= min(requests - stop + 3, requests)
    assert play(path) == (whole, 0)


def test_a_torn_or_damaged_journal_costs_time_and_no_result(tmp_path, caplog):
    path, whole = tmp_path / "journal", play(tmp_path / "whole")[0]
    play(path)
    data, pick = path.read_bytes(), random.Random(0)
    for size in pick.sample(range(len(data)), 40):
        path.write_bytes(data[:size])
        assert play(path)[0] == whole
    assert not caplog.records  # a kill leaves a torn line
    for place in pick.sample(range(len(data)), 40):
        damaged = bytearray(data)
        damaged[place] ^= 1 << pick.randrange(8)
        path.write_bytes(damaged)
        assert play(path)[0] == whole
    assert "the recording starts again" in caplog.text
    for content in (b"\n", b"[]\n" * 3, b"00000000 \n", bytes(300)):
        path.write_bytes(content)
        assert play(path)[0] == whole


def test_outputs_of_other_options_and_of_another_model_are_dropped_with_a_warning(tmp_path, caplog):
    path = tmp_path / "journal"
    play(path)
    assert play(path, options=GenerationOptions(max_length=8))[1] == 3 * REQUESTS
    assert "an option has changed" in caplog.text
    assert play(path, options=GenerationOptions(max_length=8), origin={"model": "two"})[1] == 3 * REQUESTS
    assert "another model" in caplog.text


def test_a_full_disk_ends_the_journal_with_one_warning_and_not_the_session(tmp_path, caplog, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    assert play(tmp_path / "journal")[1] == 3 * REQUESTS
    assert [record.message.partition(": ")[2] for record in caplog.records] == [
        "No space left on device; an interruption would lose its windows"
    ]


def test_an_output_of_an_unknown_type_is_computed_again(tmp_path):
    journal = Journal(tmp_path / "journal", ORIGIN)
    journal.append((0, 0), "", object())
    journal.append((0, 1), "", None)
    assert not Journal(tmp_path / "journal", ORIGIN).entries  # the second follows a gap


def test_a_recordings_journals_are_removed_and_others_stay(tmp_path):
    folder = tmp_path / "windows"
    folder.mkdir()
    paths = [journal_path(folder, name, channel) for name in ("a.wav", "b\n.wav") for channel in (None, 0, 1)]
    assert len(set(paths)) == 6
    for path in paths:
        path.touch()
    (folder / "notes.txt").touch()
    remove_journals(folder, "a.wav")
    assert sorted(folder.iterdir()) == sorted([*paths[3:], folder / "notes.txt"])
    remove_journals(folder)
    assert list(folder.iterdir()) == [folder / "notes.txt"]
    (folder / "notes.txt").unlink()
    remove_journals(folder)
    assert not folder.exists()
    remove_journals(folder)


def test_another_engine_computes_no_recorded_window_again_and_all_of_changed_samples(
    tmp_path, caplog, monkeypatch
):
    submitted, submit = [], GenerationLoop.submit
    monkeypatch.setattr(GenerationLoop, "submit", lambda *given: submitted.append(1) or submit(*given))
    checkpoint = write_ctc_checkpoint(tmp_path)
    wave = np.random.default_rng(0).normal(0, 0.1, 16_000 * 24).astype(np.float32)
    other, found = np.roll(wave, 9), []
    for samples, journal in ((wave, True), (wave, True), (other, True), (other, False)):
        with tritone.Engine(checkpoint) as engine:
            path = tmp_path / "journal" if journal else None
            result = engine.submit(samples, journal=path, max_window=4).result(60)
            found.append((result.text, result.words, len(submitted)))
            submitted.clear()
    assert found[1] == (*found[0][:2], 0)
    assert found[2] == found[3]
    assert found[2][2] > 4
    assert "has changed" in caplog.text


def test_the_origin_tells_models_apart(tmp_path):
    model = tritone.AutoModelForCTC.from_pretrained(write_ctc_checkpoint(tmp_path))
    before = journals.origin_of(model)
    assert journals.origin_of(model) == before
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    assert journals.origin_of(model) != before
