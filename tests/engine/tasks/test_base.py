"""Encoder-only tasks alike: CTC and classification of recordings and of texts."""

import numpy as np
import pytest

import tritone
from tritone.engine.config import EngineConfig

BUDGET, RATE = EngineConfig().predict_budget_on_cpu, 16_000
TEXTS = ["the quick brown fox", "one", "cats and dogs, and foxes.", ("the lazy dog", "the quick fox")] * 80


@pytest.mark.parametrize("checkpoint", ["ctc_checkpoint", "audio_classifier", "text_classifier"])
def test_no_step_encodes_more_than_its_budget_or_one_request(checkpoint, request, waveforms, monkeypatch):
    with tritone.Engine(request.getfixturevalue(checkpoint), device="cpu") as engine:
        length, predict, steps = engine.model.encoder_length, engine.model.predict, []

        def watched(features, cu_frames):
            steps.append([length(frames) for frames in cu_frames.diff().tolist()])
            return predict(features, cu_frames)

        monkeypatch.setattr(engine.model, "predict", watched)
        sources = TEXTS
        if checkpoint != "text_classifier":
            together = np.concatenate(waveforms)
            sources = [*waveforms * 3, np.tile(together, BUDGET // length(len(together)) + 1)]
            assert length(len(sources[-1])) > BUDGET
        if checkpoint == "ctc_checkpoint":
            results = list(engine.transcribe(sources, max_window=len(sources[-1]) / RATE))
        else:
            results = list(engine.classify(sources))
    assert all(result.error is None for result in results)
    if checkpoint != "text_classifier":
        assert [round(result.duration * RATE) for result in results] == [len(source) for source in sources]
    assert sum(map(len, steps)) == len(sources)
    assert all(len(step) == 1 or sum(step) <= BUDGET for step in steps)
    assert len(steps) < len(sources)
