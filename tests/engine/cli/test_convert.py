"""`tritone convert`: every format that is read becomes a folder that transformers reads."""

import json
import zipfile
from pathlib import Path

import pytest
import torch
from checkpoints import GOLDEN, assert_same_weights, replace_by_bin, weights_of
from commands import tritone_invoke
from ctranslate2_files import SIZES, ctranslate2_folder, openai_file
from factories import edit_json, seeded
from safetensors.torch import load_file

import tritone
from tritone.engine.builtin_models import ENGLISH

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "models" / "digits"


def converted(source: object, target: Path, *options: str) -> str:
    """Standard error of a conversion that succeeds."""
    run = tritone_invoke("convert", source, target, *options)
    assert run.exit_code == 0, run.stderr
    assert run.stdout == ""
    return run.stderr


def unzipped(framework: str, name: str, folder: Path) -> Path:
    """Folder of one checkpoint that TensorFlow or Flax wrote."""
    with zipfile.ZipFile(GOLDEN / f"{framework}_checkpoints.zip") as content:
        content.extractall(folder, [path for path in content.namelist() if path.startswith(f"{name}/")])
    return folder / name


def test_a_recognizer_comes_with_its_processor_and_the_same_bits(tmp_path):
    said = converted("digits", tmp_path / "digits")
    assert said.endswith(": Speech2TextForConditionalGeneration, Speech2TextProcessor, float16\n")
    ours, theirs = weights_of(tmp_path / "digits"), weights_of(DIGITS)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    recording = ROOT / "samples" / "digits" / "two_digits_16k.wav"
    with tritone.Engine(tmp_path / "digits", device="cpu") as engine:
        assert engine.submit(recording).result(timeout=60).text == "four two"


def test_a_dtype_is_written_as_it_is_asked_for(tmp_path):
    converted(DIGITS, tmp_path / "wide", "--dtype", "float32")
    assert {tensor.dtype for tensor in weights_of(tmp_path / "wide").values()} == {torch.float32}
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"


@pytest.mark.parametrize("name", ["ctc_checkpoint", "audio_classifier", "text_classifier"])
def test_every_task_keeps_its_class_and_what_its_files_say(name, request, tmp_path):
    source = request.getfixturevalue(name)
    converted(source, tmp_path / "out")
    before, after = (
        json.loads((folder / "config.json").read_text()) for folder in (source, tmp_path / "out")
    )
    assert before["architectures"] == after["architectures"]
    with tritone.Engine(source, device="cpu") as one, tritone.Engine(tmp_path / "out", device="cpu") as other:
        assert_same_weights(other.model, one.model)
        assert type(other.processor) is type(one.processor)


def test_pickled_weights_become_safetensors(ctc_checkpoint, tmp_path):
    weights = weights_of(ctc_checkpoint)
    source = tmp_path / "pickled"
    converted(ctc_checkpoint, source)
    replace_by_bin(source, weights)
    converted(source, tmp_path / "out")
    assert weights_of(tmp_path / "out").keys() == weights.keys()
    assert not (tmp_path / "out" / "pytorch_model.bin").exists()


@pytest.mark.parametrize(
    ("framework", "file"), [("tensorflow", "tf_model.h5"), ("flax", "flax_model.msgpack")]
)
def test_other_frameworks_weights_are_converted_from_a_folder_and_a_file_alike(framework, file, tmp_path):
    pytest.importorskip("h5py")
    folder = unzipped(framework, "distilbert", tmp_path)
    said = converted(folder, tmp_path / "a")
    converted(folder / file, tmp_path / "b")
    assert "DistilBertForSequenceClassification, float32" in said
    one, other = weights_of(tmp_path / "a"), weights_of(tmp_path / "b")
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    content = load_file(folder / "expected.safetensors")
    inputs = {name[7:]: value.long() for name, value in content.items() if name.startswith("inputs.")}
    model = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path / "a")
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, content["outputs.logits"], atol=1e-4, rtol=1e-4)


def test_transformers_reads_what_was_converted(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("h5py")
    folder = unzipped("tensorflow", "distilbert", tmp_path)
    converted(folder, tmp_path / "out")
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert_same_weights(theirs, tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path / "out"))


@pytest.mark.parametrize("write", [ctranslate2_folder, openai_file])
def test_other_programs_whisper_is_converted_without_the_tokenizer_that_it_lacks(write, tmp_path):
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = tritone.WhisperConfig(vocab_size=51864, **SIZES, **ids)
    model = seeded(tritone.WhisperForConditionalGeneration, config)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "proj_out.weight"}
    source = write(tmp_path / "tiny.pt", state)
    said = converted(source, tmp_path / "out")
    assert "warning: without a processor: " in said
    assert "has no " in said
    assert said.endswith(": WhisperForConditionalGeneration, WhisperFeatureExtractor, float32\n")
    again = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "out")
    assert_same_weights(again, model)
    assert tritone.AutoFeatureExtractor.from_pretrained(tmp_path / "out").feature_size == config.num_mel_bins


def test_a_target_with_files_is_left_alone_until_the_call_says_otherwise(ctc_checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    run = tritone_invoke("convert", ctc_checkpoint, tmp_path)
    assert (run.exit_code, list(tmp_path.iterdir())) == (2, [tmp_path / "notes.txt"])
    assert "has files; name another folder, or add --overwrite" in run.stderr
    converted(ctc_checkpoint, tmp_path, "--overwrite")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "model.safetensors").is_file()


def unknown_class(folder: Path) -> None:
    edit_json(folder / "config.json", architectures=["HubertForDancing"])


@pytest.mark.parametrize(
    ("source", "target", "options", "message"),
    [
        ("{folder}", "{folder}", ["--overwrite"], "is the checkpoint itself; name another folder"),
        ("{folder}", "{folder}/config.json", [], "is not a folder; name another"),
        ("{folder}/gone", "{out}", [], "no checkpoint folder"),
        ("{folder}", "{out}", ["--dtype", "int8"], "'int8' is not supported; use float32"),
        ("{unknown}", "{out}", [], "is a HubertForDancing; of wav2vec2 there are here: "),
    ],
)
def test_a_wrong_call_ends_with_2_and_writes_nothing(
    source, target, options, message, ctc_checkpoint, tmp_path
):
    places = {"folder": ctc_checkpoint, "out": tmp_path / "out", "unknown": tmp_path / "unknown"}
    converted(ctc_checkpoint, places["unknown"])
    unknown_class(places["unknown"])
    run = tritone_invoke("convert", source.format(**places), target.format(**places), *options)
    assert run.exit_code == 2
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not places["out"].exists()


@pytest.mark.skipif(ENGLISH.find() is None, reason=f"needs the extra: {ENGLISH.remedy}")
def test_whisper_of_ctranslate2_comes_with_all_that_transformers_wants(tmp_path):
    transformers = pytest.importorskip("transformers")
    said = converted("english", tmp_path / "out")
    assert "WhisperForConditionalGeneration, WhisperProcessor, float16" in said
    theirs = transformers.WhisperForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert_same_weights(theirs, tritone.AutoModelForSpeechSeq2Seq.from_pretrained(tmp_path / "out"))
    processor = transformers.WhisperProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer("Hello.").input_ids == [50257, 50362, 15496, 13, 50256]
    assert theirs.generation_config.alignment_heads[0] == [1, 0]
