"""Classifiers in the engine: labels and scores of recordings and texts, alone and beside other models."""

import itertools
import json
import shutil
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from factories import seeded
from text_classifiers import TINY
from torch.nn.init import normal_

import tritone
from tritone.engine.audio.reader import AudioError, TooShortError
from tritone.engine.config import EngineConfig
from tritone.engine.tasks.inputs import TextError

SAMPLES = Path(__file__).parents[3] / "samples" / "digits"
SOON = 60  # seconds
MAX_IN_FLIGHT = EngineConfig().in_flight_texts
RATE = 16_000
TEXTS = [
    "the quick brown fox",
    "jumps over lazy dogs",
    "zero one two three four five six seven eight nine",
    "one",
    "cats and dogs, and foxes.",
    "an unknown wörd",
    ("the quick fox", "the lazy dog"),
    ("the lazy dog", "the quick fox"),
    ["nine", "eight seven"],
]


@pytest.fixture
def edited(text_classifier, tmp_path):
    """A copy of the classifier of texts with fields of its configuration replaced."""

    def copy(**fields) -> Path:
        folder = tmp_path / "copy"
        shutil.copytree(text_classifier, folder, dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **fields}))
        return folder

    return copy


def scores(logits: torch.Tensor, names: list[str], function=lambda logits: logits.softmax(-1)) -> dict:
    return dict(zip(names, function(logits.double()).tolist(), strict=True))


def same(result, wanted: dict) -> None:
    found = [label.score for label in result.labels]
    assert found == sorted(found, reverse=True)
    assert {label.label: label.score for label in result.labels} == pytest.approx(wanted, abs=1e-6)


# Labels and scores


def test_a_recording_has_the_softmax_of_its_own_logits_best_first(audio, waveforms):
    model, names = audio.model, list(audio.model.config.id2label.values())
    best = set()
    for result, waveform in zip(audio.classify(waveforms, top_k=None), waveforms, strict=True):
        inputs = audio.processor(waveform, sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            same(result, scores(model(inputs.input_values).logits[0], names))
        assert (result.finish_reason, result.error) == ("stop", None)
        assert result.duration == len(waveform) / RATE
        assert result.source is waveform
        assert sum(label.score for label in result.labels) == pytest.approx(1)
        best.add(result.labels[0].label)
    assert len(best) > 2  # or the weights would say nothing


def test_a_text_or_pair_has_the_softmax_of_its_own_logits_with_token_types(texts):
    model, names = texts.model, ["no", "yes", "maybe"]
    results = list(texts.classify(TEXTS))
    for result, text in zip(results, TEXTS, strict=True):
        first, second = (text, None) if isinstance(text, str) else text
        encoded = texts.processor(first, second)
        with torch.inference_mode():
            inputs = {name: torch.tensor([ids]) for name, ids in encoded.items()}
            same(result, scores(model(**inputs).logits[0], names))
            if second:
                untyped = model(inputs["input_ids"]).logits[0]
                assert scores(untyped, names)["no"] != pytest.approx(
                    {label.label: label.score for label in result.labels}["no"], abs=1e-5
                )
        assert (result.finish_reason, result.duration, result.source) == ("stop", 0.0, text)
    assert results[6].labels != results[7].labels
    assert (texts.sampling_rate, texts.max_seconds) == (None, None)


@pytest.mark.parametrize(
    ("fields", "function"),
    [
        ({"problem_type": "multi_label_classification"}, torch.sigmoid),
        ({"problem_type": "regression"}, lambda logits: logits),
        ({"problem_type": "single_label_classification"}, lambda logits: logits.softmax(-1)),
    ],
)
def test_scores_are_of_the_kind_of_problem(edited, texts, fields, function):
    with tritone.Engine(edited(**fields), device="cpu") as engine:
        for text, result in zip(TEXTS[:5], engine.classify(TEXTS[:5]), strict=True):
            encoded = {name: torch.tensor([ids]) for name, ids in texts.processor(text).items()}
            with torch.inference_mode():
                same(result, scores(texts.model(**encoded).logits[0], ["no", "yes", "maybe"], function))


def test_one_label_alone_is_a_probability_unless_it_is_a_regression(text_classifier):
    loaded = tritone.BertForSequenceClassification.from_pretrained(
        text_classifier, num_labels=1, id2label={0: "liked"}, ignore_mismatched_sizes=True
    )
    tokenizer = tritone.AutoTokenizer.from_pretrained(text_classifier)
    with tritone.Engine(loaded, processor=tokenizer) as engine:
        (label,) = next(engine.classify(["one"])).labels
        loaded.config.problem_type = "regression"
        (raw,) = next(engine.classify(["one"])).labels
    assert (label.label, raw.label) == ("liked", "liked")
    assert label.score == pytest.approx(torch.sigmoid(torch.tensor(raw.score)).item(), abs=1e-6)


def test_top_k_labels_come_and_five_by_default(audio, waveforms):
    full = next(audio.classify(waveforms[:1], top_k=None)).labels
    assert len(full) == 6
    for top_k, count in ((1, 1), (3, 3), (99, 6)):
        assert next(audio.classify(waveforms[:1], top_k=top_k)).labels == full[:count]
        assert audio.submit(waveforms[0], top_k=top_k).result(SOON).labels == full[:count]
    assert audio.submit(waveforms[0]).result(SOON).labels == full[:5]
    assert next(audio.classify(waveforms[:1])).labels == full[:5]


# Many at once


def test_twenty_recordings_at_once_are_to_the_bit_what_each_is_alone(audio, waveforms):
    alone = [audio.submit(waveform).result(SOON) for waveform in waveforms]
    handles = [audio.submit(waveform, priority=index % 3) for index, waveform in enumerate(waveforms)]
    assert [handle.result(SOON) for handle in handles] == alone
    assert list(audio.classify(reversed(waveforms))) == alone[::-1]


def test_many_texts_at_once_are_to_the_bit_what_each_is_alone(texts):
    alone = [texts.submit(text).result(SOON) for text in TEXTS]
    assert list(texts.classify(TEXTS * 40)) == alone * 40
    handles = [texts.submit(text, priority=index % 3) for index, text in enumerate(TEXTS[::-1])]
    assert [handle.result(SOON) for handle in handles] == alone[::-1]


ENDS = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}  # [PAD], [CLS], [SEP]
POSITIONS = {"max_position_embeddings": 24}
# What a family's configuration takes from the tokenizer, and its positions.
FIELDS = {
    "Albert": POSITIONS,
    "Bart": POSITIONS | ENDS | {"decoder_start_token_id": 3},
    "DistilBert": POSITIONS,
    "GPT2": ENDS | {"n_positions": 24},
    "GPTNeo": POSITIONS | ENDS,
    "Roberta": {"max_position_embeddings": 26},
    "T5": {"eos_token_id": 3, "decoder_start_token_id": 0},
    "XLNet": {},
}


@pytest.mark.parametrize("family", FIELDS)
def test_every_family_of_classifiers_of_texts_is_served_alike(family, text_classifier):
    tokenizer = tritone.AutoTokenizer.from_pretrained(text_classifier)
    config = getattr(tritone, f"{family}Config")(
        **{**TINY[family], **FIELDS[family], "vocab_size": 70, "num_labels": 4}
    )
    model_class = getattr(tritone, f"{family}ForSequenceClassification")
    model = seeded(model_class, config, init=partial(normal_, std=0.4))
    long = "one two three four five " * 6
    with tritone.Engine(model, processor=tokenizer) as engine:
        alone = [engine.submit(text).result(SOON) for text in TEXTS]
        assert list(engine.classify(TEXTS * 5)) == alone * 5
        assert len({result.labels for result in alone}) > 5
        result = engine.submit(long).outcome(SOON)
        if family in ("T5", "XLNet"):  # whose positions are relative
            assert result.error is None
        else:
            assert "32 tokens, and the model has positions for 24" in str(result.error)
            assert engine.submit(long, truncate=True).result(SOON).labels


def test_one_stream_mixes_transcription_and_classification_on_three_models(
    audio_classifier, text_classifier, waveforms
):
    recordings = sorted(SAMPLES.glob("*.*a*"))[:4]
    wanted = json.loads((SAMPLES / "transcripts.json").read_text())
    with (
        tritone.Engine("digits", device="cpu", num_rows=8) as digits,
        tritone.Engine(audio_classifier, device="cpu") as audio,
        tritone.Engine(text_classifier, device="cpu") as texts,
    ):
        alone = {audio: [audio.submit(waveform).result(SOON) for waveform in waveforms]}
        alone[texts] = [texts.submit(text).result(SOON) for text in TEXTS]
        sources = {digits: recordings, audio: waveforms, texts: TEXTS}
        turns = itertools.zip_longest(*([(engine, n) for n in range(len(sources[engine]))] * 2
                                        for engine in sources))  # fmt: skip
        stream = [request for turn in turns for request in turn if request is not None]
        handles = [(engine, n, engine.submit(sources[engine][n])) for engine, n in stream]
        found = {digits: 0, audio: 0, texts: 0}
        for engine, number, handle in handles:
            result = handle.result(SOON)
            found[engine] += 1
            if engine is digits:
                assert result.text == wanted[recordings[number].name]
            else:
                assert result == alone[engine][number]
        assert list(found.values()) == [8, 40, 18]
        # And from two threads, each with results in order.
        transcribed, labeled = [], []
        threads = [
            threading.Thread(target=lambda: transcribed.extend(digits.transcribe(recordings))),
            threading.Thread(target=lambda: labeled.extend(audio.classify(waveforms))),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(SOON)
    assert [result.text for result in transcribed] == [wanted[path.name] for path in recordings]
    assert labeled == alone[audio]


def test_threads_that_share_an_engine_each_get_their_own_in_order(texts):
    alone = [texts.submit(text).result(SOON) for text in TEXTS]
    found: dict[int, list] = {}

    def ask(number: int) -> None:
        mine = (TEXTS[(number + index) % len(TEXTS)] for index in range(90))
        found[number] = list(texts.classify(mine, priority=number % 3 - 1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
    for number in range(6):
        assert found[number] == [alone[(number + index) % len(TEXTS)] for index in range(90)]


def test_an_endless_stream_is_read_a_bounded_number_ahead(texts):
    read = itertools.count()
    endless = (TEXTS[next(read) % len(TEXTS)] for _ in itertools.repeat(None))
    results = texts.classify(endless)
    first = list(itertools.islice(results, 30))
    assert next(read) <= 30 + 2 * MAX_IN_FLIGHT + 1
    assert first[0] == first[9] == first[18]
    results.close()


# What goes wrong


def test_a_bad_recording_fails_alone_at_its_index(audio, waveforms, tmp_path):
    path = tmp_path / "click.wav"
    soundfile.write(path, np.full(300, 0.1), RATE)
    results = list(audio.classify([waveforms[0], path, waveforms[1], "gone.wav", np.full(9, np.nan)]))
    errors = [type(result.error) for result in results]
    assert errors == [type(None), TooShortError, type(None), AudioError, AudioError]
    assert str(results[1].error).startswith(f"{path}: a recording of 300 samples is too short")
    assert (results[1].labels, results[1].finish_reason) == ((), "error")
    with pytest.raises(AudioError, match="no such file"):
        audio.submit("gone.wav").result(SOON)


def test_a_bad_text_fails_alone_with_its_beginning_in_the_message(texts):
    long = "one two three four five six seven eight nine " * 4
    bad = [long, 7, ("a", "b", "c"), b"one", "b\udcff"]
    results = list(texts.classify(["one", *bad, "two"]))
    assert [result.error is None for result in results] == [True, *[False] * 5, True]
    assert all(isinstance(result.error, TextError) for result in results[1:-1])
    messages = [str(result.error) for result in results[1:-1]]
    assert messages[0] == (
        "'one two three four five six seven eig...': 38 tokens, and the model has positions for 24; "
        "shorten it, or have it cut: truncate=True, --truncate"
    )
    for message, what in zip(messages[1:4], ("int 7", "tuple ('a', 'b', 'c')", "bytes b'one'"), strict=True):
        assert message == f"a text is a str, or a pair (str, str); got {what}"
    assert "is not Unicode" in messages[4]


def test_a_text_that_is_too_long_is_cut_to_the_models_positions_where_asked(texts):
    long = "one two three four five six seven eight nine " * 4
    cut = texts.submit(long, truncate=True).result(SOON)
    words = long.split()[:22]  # and [CLS] and [SEP]
    assert cut.labels == texts.submit(" ".join(words)).result(SOON).labels
    assert next(texts.classify([long], truncate=True)) == cut
    assert texts.submit("one", truncate=True).result(SOON) == texts.submit("one").result(SOON)
    pair = texts.submit((long, long), truncate=True).result(SOON)
    assert pair.error is None


def test_tokens_that_the_model_does_not_know_never_reach_it(texts, text_classifier, tmp_path):
    shutil.copytree(text_classifier, tmp_path / "other")
    with (tmp_path / "other" / "vocab.txt").open("a") as file:
        file.write("\nelephants\n")
    (tmp_path / "other" / "tokenizer.json").unlink(missing_ok=True)
    tokenizer = tritone.AutoTokenizer.from_pretrained(tmp_path / "other")
    with tritone.Engine(texts.model, processor=tokenizer) as engine:
        good, bad = engine.classify(["one", "elephants"])
    assert good.error is None
    assert "is beyond the model's" in str(bad.error)
    assert "give the tokenizer that belongs to it" in str(bad.error)


def test_token_types_that_the_model_does_not_know_never_reach_it(edited):
    """On a GPU they would stop it for good."""
    config = tritone.BertConfig.from_pretrained(edited(type_vocab_size=1))
    model = tritone.BertForSequenceClassification(config)
    with tritone.Engine(model, processor=tritone.AutoTokenizer.from_pretrained(edited())) as engine:
        good, bad, also = engine.classify(["one", ("one", "two"), "two"])
    assert (good.error, also.error) == (None, None)
    assert isinstance(bad.error, TextError)
    assert "'one': token types go to 1, and the model knows types 0 to 0; give one text" in str(bad.error)


def test_logits_that_are_not_finite_are_an_error_with_the_remedy(text_classifier):
    loaded = tritone.AutoModelForSequenceClassification.from_pretrained(text_classifier)
    with torch.no_grad():
        loaded.classifier.bias[1] = float("nan")
    with tritone.Engine(loaded, processor=tritone.AutoTokenizer.from_pretrained(text_classifier)) as engine:
        (result,) = engine.classify(["one"])
        assert (result.labels, result.finish_reason) == ((), "error")
        with pytest.raises(RuntimeError, match=r"logits are not finite: .* run it in float32"):
            engine.submit("one").result(SOON)


def test_cancelled_among_others_it_has_no_labels_and_the_others_theirs(audio, waveforms):
    alone = [audio.submit(waveform).result(SOON) for waveform in waveforms]
    handles = [audio.submit(waveform) for waveform in waveforms * 3]
    cancelled = [index for index in range(59, 0, -7) if handles[index].cancel()]
    assert cancelled
    for index, handle in enumerate(handles):
        result = handle.result(SOON)
        if index in cancelled and result.finish_reason == "cancelled":
            assert (result.labels, result.error) == ((), None)
        else:
            assert result == alone[index % 20]
    stats = audio.stats()
    assert stats.finished + stats.cancelled == 80
    assert (stats.running, stats.waiting, stats.failed, stats.tokens_generated) == (0, 0, 0, 0)


def test_stats_count_texts_and_no_seconds_of_them(texts):
    list(texts.classify([*TEXTS, 7]))
    stats = texts.stats()
    assert (stats.finished, stats.failed, stats.audio_seconds, stats.pages_total) == (9, 1, 0.0, 0)
    assert stats.busy_seconds > 0


def test_iterating_over_a_handle_yields_the_best_label(texts):
    handle = texts.submit("one")
    assert list(handle) == [handle.result(SOON).labels[0].label]


# Which model it is


def test_a_family_that_classifies_alone_needs_no_architecture_to_be_known(edited, texts):
    with tritone.Engine(edited(architectures=None), device="cpu") as engine:
        assert type(engine.model) is tritone.BertForSequenceClassification
        assert next(engine.classify(["one"])) == texts.submit("one").result(SOON)
    with pytest.raises(ValueError, match=r"is a BertModel, which has no head .* such as a ForSequence"):
        tritone.Engine(edited(architectures=["BertModel"]), device="cpu")


def test_a_loaded_model_goes_with_its_feature_extractor_or_a_whole_processor(
    audio, ctc_checkpoint, waveforms
):
    wanted = audio.submit(waveforms[3]).result(SOON)
    for processor in (audio.processor, tritone.AutoProcessor.from_pretrained(ctc_checkpoint)):
        with tritone.Engine(audio.model, processor=processor) as loaded:
            assert loaded.submit(waveforms[3]).result(SOON) == wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_on_a_gpu_many_at_once_are_to_the_bit_what_each_is_alone(
    audio_classifier, text_classifier, waveforms, dtype
):
    for checkpoint, sources in ((audio_classifier, waveforms), (text_classifier, TEXTS * 3)):
        with tritone.Engine(checkpoint, device="cuda", dtype=dtype) as engine:
            alone = [engine.submit(source).result(SOON) for source in sources]
            assert list(engine.classify(sources)) == alone
            assert engine.stats().compiled == 0
