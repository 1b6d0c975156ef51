"""The bundled classifier and its training script on real recordings."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

import tritone

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "models" / "digit_classifier"
DATA = ROOT.parent / "shared" / "data" / "fsdd"

needs_recordings = pytest.mark.skipif(
    not DATA.is_dir(), reason="needs the Free Spoken Digit Dataset beside this repository"
)


def script(*arguments: object) -> subprocess.CompletedProcess[str]:
    path = ROOT / "examples" / "training" / "train_digit_classifier.py"
    command = [sys.executable, path, "--data", DATA, *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, timeout=300, env=environment
    )


@needs_recordings
def test_at_least_95_of_100_unseen_digits_are_correct(tmp_path):
    run = script("--evaluate", MODEL, "--plots", tmp_path, "--threads", 1)
    assert run.returncode == 0, run.stderr
    found = json.loads(run.stdout.splitlines()[-1])
    assert found["recordings"] == 250
    assert found["accuracy"] >= 95
    assert sorted(found["accuracy_by_speaker"]) == ["george", "jackson", "nicolas", "theo", "yweweler"]
    assert (tmp_path / "confusion.png").stat().st_size > 5000


@needs_recordings
def test_the_script_trains_measures_what_it_wrote_and_leaves_a_speaker_out(tmp_path):
    options = ("--steps", 3, "--batch", 4, "--voices", 0, "--threads", 1, "--leave-out", "theo")
    run = script(*options, "--out", tmp_path / "model", "--plots", tmp_path / "plots")
    assert run.returncode == 0, run.stderr
    assert "speakers: george, jackson, nicolas, yweweler; no espeak-ng voices" in run.stdout
    found = json.loads(run.stdout.splitlines()[-1])
    assert (found["left_out"], found["recordings"]) == ("theo", 500)
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {"confusion.png", "losses.png"}
    model = tritone.AutoModelForAudioClassification.from_pretrained(tmp_path / "model")
    assert model.config.id2label[7] == "seven"


@needs_recordings
def test_an_unknown_speaker_is_refused_with_the_known_ones_named(tmp_path):
    run = script("--leave-out", "nobody", "--out", tmp_path, "--voices", 0)
    assert run.returncode == 1
    assert "no speaker 'nobody'" in run.stderr
    assert "george, jackson, nicolas, theo, yweweler" in run.stderr


def test_transformers_reads_it_and_gives_a_recording_the_same_scores():
    transformers = pytest.importorskip("transformers")
    waveform, rate = soundfile.read(ROOT / "samples" / "digits" / "two_digits_16k.wav", dtype="float32")
    extractor = transformers.AutoFeatureExtractor.from_pretrained(MODEL)
    inputs = extractor(waveform, sampling_rate=rate, return_tensors="pt")
    theirs = transformers.Wav2Vec2ForSequenceClassification.from_pretrained(MODEL, dtype=torch.float32)
    ours = tritone.AutoModelForAudioClassification.from_pretrained(MODEL, dtype=torch.float32)
    with torch.inference_mode():
        wanted = theirs.eval()(**inputs).logits
        found = ours(inputs.input_values, inputs.attention_mask).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-4)
    with tritone.Engine(ours, processor=tritone.AutoFeatureExtractor.from_pretrained(MODEL)) as engine:
        (result,) = engine.classify([waveform], top_k=10)
    scores = {label.label: label.score for label in result.labels}
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    for number, score in enumerate(wanted.softmax(-1)[0].tolist()):
        assert scores[theirs.config.id2label[number]] == pytest.approx(score, abs=1e-4)
