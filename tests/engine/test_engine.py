"""The engine on a real model with random weights, against `model.generate` on one recording at a time."""

import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import soundfile
import torch

import tritone
from tritone.engine.audio.reader import AudioError
from tritone.engine.config import EngineConfig

SOON = 60  # seconds


@pytest.fixture(scope="module")
def model(checkpoint):
    return tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def processor(checkpoint):
    return tritone.AutoProcessor.from_pretrained(checkpoint)


@pytest.fixture(scope="module")
def alone(model, processor):
    """One recording through processor and generate, with nothing beside it."""

    def generate(waveform, **options):
        inputs = processor(waveform, sampling_rate=16_000, return_tensors="pt")
        ids = model.generate(inputs.input_features, attention_mask=inputs.attention_mask, **options)
        return tuple(ids[0].tolist())

    return generate


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True, "seed": 5, "top_k": 0}])
def test_each_of_twenty_at_once_has_the_tokens_that_generate_finds_for_it_alone(
    engine, alone, waveforms, options
):
    options = {"max_new_tokens": 12, **options}
    results = list(engine.transcribe(waveforms, **options))
    assert [result.token_ids for result in results] == [alone(waveform, **options) for waveform in waveforms]
    assert len({result.token_ids for result in results}) > 8  # or the weights would say nothing


def test_a_request_is_the_same_alone_and_among_others_of_every_kind(engine, waveforms):
    wanted = engine.submit(waveforms[3]).result(SOON)
    kinds = [{}, {"num_beams": 4}, {"do_sample": True}, {"max_new_tokens": 3}, {"repetition_penalty": 2.0}]
    others = [
        engine.submit(waveform, **kinds[index % len(kinds)], stream=index % 2 == 0)
        for index, waveform in enumerate(waveforms)
    ]
    again = engine.submit(waveforms[3], priority=1)
    for other in others:
        other.result(SOON)
    assert again.result(SOON) == wanted


def test_text_arrives_in_pieces_that_join_to_the_result(engine, waveforms):
    for options in ({}, {"do_sample": True}, {"num_beams": 2}):
        handle = engine.submit(waveforms[5], **options)
        pieces = list(handle)
        assert "".join(pieces) == handle.result(SOON).text != ""
        if "num_beams" in options:
            assert len(pieces) == 1


def test_files_arrays_and_tensors_of_the_same_audio_give_the_same_result(engine, waveforms, tmp_path):
    waveform = (waveforms[0] * 32767).astype(np.int16)
    path = tmp_path / "a.flac"
    soundfile.write(path, waveform, 16_000)
    stereo = np.stack([waveform, waveform], axis=1)
    sources = [path, str(path), waveform, stereo, torch.from_numpy(waveform) / 32768]
    results = list(engine.transcribe(sources))
    assert [result.error for result in results] == [None] * 5
    assert len({(result.token_ids, result.duration) for result in results}) == 1
    assert results[0].duration == pytest.approx(len(waveform) / 16_000)
    assert results[0].source is path


def test_an_array_of_another_rate_is_resampled(engine):
    waveform = np.random.default_rng(0).standard_normal(48_000).astype(np.float32) * 0.1
    assert engine.submit(waveform, sampling_rate=48_000).result(SOON).duration == 1.0
    assert engine.submit(waveform).result(SOON).duration == 3.0


def test_an_array_may_be_overwritten_once_it_is_submitted(engine, waveforms):
    wanted = engine.submit(waveforms[1]).result(SOON)
    buffer = waveforms[1].copy()
    handles = [engine.submit(buffer) for _ in range(3)]
    buffer[:] = 0
    assert [handle.result(SOON) for handle in handles] == [wanted] * 3


def test_bad_recordings_fail_in_order_and_stop_no_other(engine, waveforms, tmp_path):
    missing = tmp_path / "no.wav"
    short, turned = np.zeros(100, np.float32), np.zeros((2, 9), np.int16)
    sources = [waveforms[0], missing, short, None, waveforms[1], turned]
    results = list(engine.transcribe(sources, max_new_tokens=4))
    assert [result.error is None for result in results] == [True, False, False, False, True, False]
    failed = results[1]
    assert isinstance(failed.error, AudioError)
    assert str(missing) in str(failed.error)
    assert (failed.text, failed.token_ids, failed.finish_reason) == ("", (), "error")
    assert "shorter than one frame" in str(results[2].error)
    with pytest.raises(AudioError, match="no such file"):
        engine.submit(missing).result(SOON)


def test_audio_longer_than_max_seconds_is_refused_with_the_limit_in_seconds(checkpoint, tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, np.zeros(9 * 44_100), 44_100)
    fits = np.random.default_rng(0).standard_normal(8 * 16_000).astype(np.float32)
    with tritone.Engine(checkpoint, device="cpu", config=EngineConfig(max_seconds=8.0)) as engine:
        assert engine.max_seconds == 8.0
        assert engine.submit(fits, max_new_tokens=2).result(SOON).duration == 8.0
        for source in (np.append(fits, 0), path):
            with pytest.raises(AudioError, match=r"longer than 8\.0 s"):
                engine.submit(source).result(SOON)


def test_the_longest_window_is_what_the_encoder_takes(engine):
    # 200 positions of 4 frames of 10 ms, and what a frame of 25 ms reaches beyond
    audio = np.random.default_rng(0).standard_normal(int(8.02 * 16_000)).astype(np.float32)
    assert engine.max_seconds == 86_400
    assert engine.submit(audio, max_new_tokens=2).result(SOON).segments is None
    assert len(engine.submit(np.tile(audio, 2), max_new_tokens=2).result(SOON).segments) > 1
    with pytest.raises(ValueError, match=r"max_window is 8\.1; it must be .* from 0\.1 to 8, the longest"):
        engine.submit(audio, max_window=8.1)


def test_the_longest_result_follows_the_audios_length_unless_it_is_given(engine, waveforms, checkpoint):
    endless = {"eos_token_id": 5, "suppress_tokens": [5]}  # never ends by itself
    for waveform in waveforms[:4]:
        result = engine.submit(waveform, **endless).result(SOON)
        wanted = 1 + 16 + int(np.ceil(8 * len(waveform) / 16_000))
        assert (len(result.token_ids), result.finish_reason) == (wanted, "length")
    assert len(engine.submit(waveforms[0], **endless, max_new_tokens=5).result(SOON).token_ids) == 6
    assert len(engine.submit(waveforms[0], **endless, max_length=5).result(SOON).token_ids) == 5
    seven_seconds = np.tile(waveforms[4], 3)
    assert (
        len(engine.submit(seven_seconds, **endless).result(SOON).token_ids) == 64
    )  # the decoder's positions

    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(checkpoint)
    model.generation_config.max_length = 9
    with tritone.Engine(model, processor=engine.processor, num_rows=2) as own:
        assert len(own.submit(waveforms[0], **endless).result(SOON).token_ids) == 9


def test_a_language_forces_its_token_and_an_unknown_one_is_refused(multilingual, engine, waveforms):
    with tritone.Engine(multilingual, device="cpu", num_rows=4) as translator:
        codes = translator.processor.tokenizer.lang_code_to_id
        for language in ("fr", "de"):
            result = translator.submit(waveforms[0], language=language).result(SOON)
            assert result.token_ids[1] == codes[language]
            assert "<lang" not in result.text
        with pytest.raises(ValueError, match=r"language 'xx' .*de, es, fr, it, nl, pt, ro, ru"):
            translator.submit(waveforms[0], language="xx")
        with pytest.raises(ValueError, match="one of them"):
            translator.submit(waveforms[0], language="fr", forced_bos_token_id=4)
    with pytest.raises(ValueError, match="has one language"):
        engine.submit(waveforms[0], language="fr")


@pytest.mark.parametrize(
    "options",
    [{"nun_beams": 2}, {"num_beams": 0}, {"penalty_alpha": 0.6}, {"num_return_sequences": 2, "num_beams": 2}],
)
def test_an_option_that_there_is_not_is_refused_at_once(engine, waveforms, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        engine.submit(waveforms[0], **options)
    with pytest.raises(ValueError, match=next(iter(options))):
        engine.transcribe(waveforms, **options)


def test_one_recording_instead_of_several_is_refused(engine):
    for source in ("a.wav", np.zeros(1000, np.float32), torch.zeros(1000)):
        with pytest.raises(ValueError, match="into a list"):
            engine.transcribe(source)


def test_a_request_that_can_never_fit_fails_with_the_numbers(checkpoint, waveforms):
    with tritone.Engine(checkpoint, device="cpu", num_rows=2, num_pages=6) as small:
        with pytest.raises(ValueError, match=r"needs 3 rows.*has 2"):
            small.submit(waveforms[3], num_beams=3, max_new_tokens=4).result(SOON)
        with pytest.raises(ValueError, match=r"pages.*cache has 6"):
            small.submit(np.tile(waveforms[4], 3)).result(SOON)
        results = list(small.transcribe(waveforms[:6], max_new_tokens=4))
        assert [result.error for result in results] == [None] * 6


def test_a_running_request_can_be_cancelled_and_gives_back_its_pages(engine, waveforms):
    handles = [engine.submit(waveform) for waveform in waveforms]
    assert handles[19].cancel()
    assert handles[19].result(SOON).finish_reason == "cancelled"
    first = next(iter(handles[0]))
    if handles[0].cancel():
        result = handles[0].result(SOON)
        assert result.text.startswith(first)
    for handle in handles[1:19]:
        assert handle.result(SOON).finish_reason in ("stop", "length")
    assert not handles[1].cancel()
    engine.submit(waveforms[0]).result(SOON)
    stats = engine.stats()
    assert (stats.running, stats.waiting, stats.failed) == (0, 0, 0)
    assert stats.cancelled in (1, 2)
    until = time.monotonic() + SOON
    while engine.stats().pages_used and time.monotonic() < until:  # they are free from the next step on
        time.sleep(0.01)
    assert engine.stats().pages_used == 0


def test_result_raises_timeout_error_in_time(engine, waveforms):
    handles = [engine.submit(waveform) for waveform in waveforms]
    with pytest.raises(TimeoutError, match="0 s"):
        handles[-1].result(timeout=0)
    assert handles[-1].result(SOON).text


def test_stats_count_what_has_been_done(engine, waveforms):
    nothing = engine.stats()
    assert (nothing.finished, nothing.tokens_per_second, nothing.rtfx) == (0, 0.0, 0.0)
    results = list(engine.transcribe([*waveforms[:5], "no.wav"], max_new_tokens=6))
    stats = engine.stats()
    assert (stats.finished, stats.failed, stats.cancelled, stats.running, stats.waiting) == (5, 1, 0, 0, 0)
    assert stats.audio_seconds == pytest.approx(sum(result.duration for result in results))
    assert stats.tokens_generated >= sum(len(result.token_ids) - 1 for result in results)
    assert stats.rtfx == pytest.approx(stats.audio_seconds / stats.busy_seconds)
    assert stats.tokens_per_second > 0
    assert 0 <= stats.pages_used <= stats.pages_total


def test_many_threads_may_submit_at_once(engine, waveforms, alone):
    wanted = [alone(waveform, max_new_tokens=6) for waveform in waveforms[:6]]
    found = []

    def client(shift):
        for index in range(6):
            number = (index + shift) % 6
            result = engine.submit(waveforms[number], max_new_tokens=6, priority=shift % 2).result(SOON)
            found.append(result.token_ids == wanted[number])

    clients = [threading.Thread(target=client, args=(shift,)) for shift in range(6)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join(SOON)
    assert found == [True] * 36


def test_a_closed_engine_is_refused_and_close_may_come_again(checkpoint, waveforms):
    with tritone.Engine(checkpoint, device="cpu", num_rows=4) as engine:
        handles = [engine.submit(waveform) for waveform in waveforms[:8]]
    assert [handle.result(timeout=0).finish_reason in ("stop", "length") for handle in handles] == [True] * 8
    engine.close()
    for use in (lambda: engine.submit(waveforms[0]), lambda: engine.transcribe(waveforms)):
        with pytest.raises(RuntimeError, match="engine is closed"):
            use()


def test_leaving_by_an_exception_cancels(checkpoint, waveforms):
    handles = []

    def leave():
        with tritone.Engine(checkpoint, device="cpu", num_rows=2) as engine:
            handles.extend(engine.submit(waveform) for waveform in waveforms)
            raise KeyError

    with pytest.raises(KeyError):
        leave()
    assert handles[-1].result(timeout=0).finish_reason == "cancelled"


def test_an_error_in_every_decode_step_fails_every_handle_and_not_the_engine(
    checkpoint, waveforms, monkeypatch
):
    all_submitted = threading.Event()

    def broken(*_):
        all_submitted.wait(SOON)
        raise MemoryError("out of it")

    with tritone.Engine(checkpoint, device="cpu", num_rows=2) as engine:
        engine.submit(waveforms[0], max_new_tokens=2).result(SOON)
        with monkeypatch.context() as patch:
            patch.setattr(engine.model, "decode", broken)
            handles = [engine.submit(waveform) for waveform in waveforms]
            all_submitted.set()
            for handle in handles:
                with pytest.raises(MemoryError, match="out of it"):
                    handle.result(SOON)
            assert {str(result.error) for result in engine.transcribe(waveforms)} == {"out of it"}
        assert {result.error for result in engine.transcribe(waveforms)} == {None}


def test_a_program_that_forgets_to_close_still_ends(checkpoint):
    code = (
        "import sys, numpy, tritone\n"
        "engine = tritone.Engine(sys.argv[1], device='cpu')\n"
        "handles = [engine.submit(numpy.random.randn(100_000) * 0.1) for _ in range(50)]\n"
        "next(iter(handles[0])); print('over')"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, checkpoint], capture_output=True, text=True, timeout=SOON
    )
    assert (run.stdout, run.stderr, run.returncode) == ("over\n", "", 0)


def test_a_model_that_cannot_be_used_is_refused(checkpoint, model, processor, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        tritone.Engine(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="needs its processor"):
        tritone.Engine(model)
    with pytest.raises(ValueError, match=r"model\.to"):
        tritone.Engine(model, processor=processor, dtype="float16")
    with pytest.raises(ValueError, match="model is a int"):
        tritone.Engine(7)
    with pytest.raises(ValueError, match="num_rows is 0"):
        tritone.Engine(checkpoint, num_rows=0)
    with pytest.raises(ValueError, match="int8"):
        tritone.Engine(checkpoint, dtype="int8")
