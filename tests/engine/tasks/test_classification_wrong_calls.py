"""Wrong calls of an engine that classifies: options, methods, processors; and its life afterwards."""

import threading

import numpy as np
import pytest

import tritone

SOON = 60  # seconds


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"top_k": 0}, "top_k must be a number of labels, 1 or more, or None for all; got 0"),
        ({"top_k": True}, "top_k must be a number"),
        ({"top_k": 2.0}, "top_k must be a number"),
        (
            {"truncate": True},
            "truncate=True is for texts; a HubertForSequenceClassification takes recordings",
        ),
        ({"truncate": 1}, "truncate must be True or False, got 1"),
    ],
)
def test_bad_options_are_refused_by_name(audio, waveforms, options, problem):
    with pytest.raises(ValueError, match=problem):
        audio.submit(waveforms[0], **options)
    with pytest.raises(ValueError, match=problem):
        audio.classify(waveforms, **options)


def test_options_of_generation_and_other_verbs_are_refused(audio, engine, ctc_checkpoint, waveforms):
    with pytest.raises(ValueError, match=r"unknown option 'num_beams': a Hubert.* takes top_k, truncate"):
        audio.submit(waveforms[0], num_beams=2)
    with pytest.raises(ValueError, match=r"language 'fr': a Hubert.* gives labels; leave it out"):
        audio.submit(waveforms[0], language="fr")
    with pytest.raises(
        ValueError, match="a HubertForSequenceClassification cannot transcribe; call classify"
    ):
        audio.transcribe(waveforms)
    with pytest.raises(ValueError, match=r"a Speech2TextFor.* cannot classify; call transcribe"):
        engine.classify(waveforms)
    with (
        tritone.Engine(ctc_checkpoint, device="cpu") as ctc,
        pytest.raises(ValueError, match="cannot classify"),
    ):
        ctc.classify(waveforms)
    with pytest.raises(ValueError, match="classify takes several sources: put the str into a list"):
        audio.classify("a.wav")


@pytest.mark.parametrize("priority", ["high", None, 0.5, float("nan")])
def test_a_priority_that_is_no_number_is_refused_and_the_engine_still_ends(text_classifier, priority):
    engine = tritone.Engine(text_classifier, device="cpu")
    problem = "priority must be a whole number, a larger one goes first; got"
    with pytest.raises(ValueError, match=problem):
        engine.submit("one", priority=priority)
    with pytest.raises(ValueError, match=problem):
        engine.classify(["one"], priority=priority)
    wanted = engine.submit("one", priority=np.int64(2)).result(SOON)
    assert list(engine.classify(["one"], priority=-1)) == [wanted]
    assert engine.stats().waiting == 0
    closing = threading.Thread(target=engine.close, daemon=True)
    closing.start()
    closing.join(SOON)
    assert not closing.is_alive()


def test_a_sampling_rate_of_texts_is_refused(texts, audio, waveforms):
    problem = "sampling_rate 8000 is of recordings, and a BertForSequenceClassification takes texts"
    with pytest.raises(ValueError, match=problem):
        texts.submit("one", sampling_rate=8000)
    with pytest.raises(ValueError, match=problem):
        texts.classify(["one"], sampling_rate=8000)
    slow, fast = (next(audio.classify(waveforms[:1], sampling_rate=rate)).duration for rate in (8000, 16000))
    assert slow == pytest.approx(2 * fast, abs=0.01)


def test_a_loaded_model_refuses_the_processor_of_another_kind(audio, texts, ctc_checkpoint):
    ctc = tritone.AutoModelForCTC.from_pretrained(ctc_checkpoint)
    for model, processor, problem in (
        (
            audio.model,
            texts.processor,
            "BertTokenizer, and a Hubert.* reads recordings; give the feature extr",
        ),
        (
            texts.model,
            audio.processor,
            "Wav2Vec2FeatureExtractor, and a Bert.* reads texts; give the tokenizer",
        ),
        (
            ctc,
            audio.processor,
            "Wav2Vec2FeatureExtractor, and a Wav2Vec2ForCTC reads recordings; give the proc",
        ),
        (ctc, texts.processor, "BertTokenizer, and a Wav2Vec2ForCTC reads recordings; give the processor of"),
    ):
        with pytest.raises(ValueError, match=f"processor is a {problem}"):
            tritone.Engine(model, processor=processor)
