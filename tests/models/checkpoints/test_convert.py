"""Checkpoints that TensorFlow and Flax wrote give the logits that they gave there.

`tests/conformance/golden/make_foreign_checkpoints.py` made the files. transformers 5 no longer reads them, so
the converted tensors are also put into its PyTorch classes, strictly: what this package's classes read, and
how, does not come into that.
"""

import json
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from checkpoints import GOLDEN, read_converted
from safetensors.torch import load_file, save_file

import tritone
from tritone.models.checkpoints.convert import FLAX, TENSORFLOW

ARCHIVES = {TENSORFLOW: "tensorflow_checkpoints.zip", FLAX: "flax_checkpoints.zip"}
ARGUMENTS: dict[str, dict[str, Any]] = {TENSORFLOW: {"from_tf": True}, FLAX: {"from_flax": True}}
# Flax calls it so, and PyTorch otherwise.
NAMES = {"BertForCausalLM": "BertLMHeadModel"}
# Models that are not here themselves; what of them is has a test of its own below.
ELSEWHERE = {"T5ForConditionalGeneration", "MBartForConditionalGeneration", "GPTNeoForCausalLM"}


def cases(*, here: bool = False) -> list[Any]:
    """Framework and folder of every checkpoint, or only of those whose class is here."""
    found = []
    for framework, archive in ARCHIVES.items():
        with zipfile.ZipFile(GOLDEN / archive) as content:
            for folder in sorted({name.partition("/")[0] for name in content.namelist()}):
                given = json.loads(content.read(f"{folder}/config.json"))["architectures"][0]
                if not here or given not in ELSEWHERE:
                    found.append(pytest.param(framework, folder, id=f"{framework}-{folder}"))
    return found


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    pytest.importorskip("h5py")
    folder = tmp_path_factory.mktemp("foreign")
    for framework, archive in ARCHIVES.items():
        with zipfile.ZipFile(GOLDEN / archive) as content:
            content.extractall(folder / framework)
    return folder


def class_name(folder: Path) -> str:
    given = json.loads((folder / "config.json").read_text())["architectures"][0]
    return NAMES.get(given, given)


def expected(folder: Path) -> tuple[dict[str, torch.Tensor], str, torch.Tensor]:
    """Inputs of the model, and the name and value of its output."""
    content = load_file(folder / "expected.safetensors")
    inputs = {name[7:]: value for name, value in content.items() if name.startswith("inputs.")}
    inputs = {name: value if value.is_floating_point() else value.long() for name, value in inputs.items()}
    ((name, value),) = ((name[8:], value) for name, value in content.items() if name.startswith("outputs."))
    return inputs, name, value


@torch.no_grad()
def assert_gives_what_it_gave(model: Any, folder: Path) -> None:
    inputs, name, value = expected(folder)
    torch.testing.assert_close(model(**inputs)[name], value, atol=1e-4, rtol=1e-4)


def test_the_archives_hold_every_pair_that_the_documentation_has():
    assert len(cases()) == 34


@pytest.mark.parametrize(("framework", "name"), cases())
def test_the_converted_tensors_fit_pytorch_and_give_the_same(framework, name, root):
    folder = root / framework / name
    cls = getattr(transformers, class_name(folder))
    config = cls.config_class.from_pretrained(folder)
    config.use_cache = False
    if (framework, name) == (TENSORFLOW, "speech_to_text"):
        config.tie_word_embeddings = False  # TensorFlow's class ties nothing
    model = cls(config).eval()
    tensors = read_converted(folder, framework)
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        tensors = {
            key.replace(f"conv.{old}", f"conv.parametrizations.weight.{new}"): tensor
            for key, tensor in tensors.items()
        }
    report = model.load_state_dict(tensors, strict=False)
    assert set(report.missing_keys) <= set(model.all_tied_weights_keys)
    assert not report.unexpected_keys
    model.tie_weights()
    assert_gives_what_it_gave(model, folder)


@pytest.mark.parametrize(("framework", "name"), cases(here=True))
def test_a_model_loaded_from_it_gives_the_same(framework, name, root):
    folder = root / framework / name
    cls = getattr(tritone, class_name(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if (framework, name) == (TENSORFLOW, "speech_to_text"):
            warnings.filterwarnings("ignore", message=".*so it is not tied")
        model = cls.from_pretrained(folder, **ARGUMENTS[framework])
    assert not model.training
    assert_gives_what_it_gave(model, folder)


# What is not here as a whole.


@torch.no_grad()
def test_gpt_neo_of_flax_gives_the_same_without_its_head(root):
    folder = root / FLAX / "gpt_neo"
    model = tritone.GPTNeoModel.from_pretrained(folder, from_flax=True)
    inputs, _, logits = expected(folder)
    hidden = model(**inputs).last_hidden_state
    torch.testing.assert_close(hidden @ model.wte.weight.T, logits, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("framework", ARCHIVES)
def test_a_classifier_takes_t5_and_has_a_fresh_head(framework, root):
    folder = root / framework / "t5"
    with pytest.warns(UserWarning, match="these are fresh"):
        model, report = tritone.T5ForSequenceClassification.from_pretrained(
            folder, output_loading_info=True, **ARGUMENTS[framework]
        )
    assert {name.partition(".")[0] for name in report["missing_keys"]} == {"classification_head"}
    assert not report["unexpected_keys"]
    state = model.state_dict()
    for name, tensor in read_converted(folder, framework).items():
        assert torch.equal(state[f"transformer.{name}"], tensor), name


@pytest.mark.parametrize(
    ("framework", "name", "cls"),
    [
        (FLAX, "gpt2", "GPT2ForSequenceClassification"),
        (FLAX, "gpt_neo", "GPTNeoForSequenceClassification"),
        (FLAX, "wav2vec2", "Wav2Vec2ForSequenceClassification"),
        (TENSORFLOW, "hubert", "HubertForSequenceClassification"),
    ],
)
def test_a_classifier_that_the_framework_never_had_takes_its_base_and_has_a_fresh_head(
    framework, name, cls, root
):
    folder = root / framework / name
    with pytest.warns(UserWarning, match="are of a model without .*these are fresh"):
        model = getattr(tritone, cls).from_pretrained(folder, num_labels=3, **ARGUMENTS[framework])
    state = model.state_dict()
    own = {key for key in state if key.startswith(("score.", "projector.", "classifier."))}
    tensors = [
        tensor for key, tensor in read_converted(folder, framework).items() if not key.startswith("lm_head.")
    ]
    assert len(state.keys() - own) == len(tensors)
    values = [state[key] for key in state.keys() - own]
    assert sum(value.double().sum() for value in values) == pytest.approx(
        sum(tensor.double().sum() for tensor in tensors)
    )


@pytest.mark.parametrize(
    ("framework", "name"), [(TENSORFLOW, "mbart"), (FLAX, "mbart"), (TENSORFLOW, "bart"), (FLAX, "bart")]
)
def test_the_decoder_of_bart_and_mbart_is_taken_out_of_the_whole(framework, name, root):
    folder = root / framework / name
    cls = {"mbart": tritone.MBartForCausalLM, "bart": tritone.BartForCausalLM}[name]
    model = cls.from_pretrained(folder, **ARGUMENTS[framework])
    state = model.state_dict()
    tensors = read_converted(folder, framework)
    names = [name for name in tensors if name.startswith("model.decoder.layers.")]
    assert len(names) == 2 * 26
    assert all(torch.equal(state[name], tensors[name]) for name in names)
    assert torch.equal(state["model.decoder.embed_tokens.weight"], tensors["model.shared.weight"])


# Forms of the same weights.


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize(
    ("name", "prefix"), [("bert", "model"), ("speech_to_text", "speech_model_checkpoint")]
)
def test_an_index_holds_what_the_h5_holds(name, prefix, root):
    folder = root / TENSORFLOW / name
    index = root / TENSORFLOW / name / "index" / f"{prefix}.ckpt.index"
    cls = getattr(tritone, class_name(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = tritone.AutoConfig.from_pretrained(folder)
        whole = cls.from_pretrained(folder, from_tf=True).state_dict()
        for given in (index, str(index), str(index).removesuffix(".index")):
            assert_same(cls.from_pretrained(given, from_tf=True, config=config).state_dict(), whole)


def test_an_index_goes_before_an_h5(root, tmp_path):
    source = root / TENSORFLOW / "bert"
    shutil.copy(source / "config.json", tmp_path)
    (tmp_path / "tf_model.h5").write_bytes(b"never read")
    for path in (source / "index").glob("model.ckpt.data-*"):
        shutil.copy(path, tmp_path)
    shutil.copy(source / "index" / "model.ckpt.index", tmp_path)
    assert_same(read_converted(tmp_path, TENSORFLOW), read_converted(source, TENSORFLOW))
    assert_gives_what_it_gave(
        tritone.BertForSequenceClassification.from_pretrained(tmp_path, from_tf=True), source
    )


@pytest.mark.parametrize(("framework", "name"), [(TENSORFLOW, "gpt2"), (FLAX, "bert")])
def test_shards_hold_what_the_whole_file_holds(framework, name, root):
    folder = root / framework / name
    assert len(list((folder / "sharded").glob("*_model-*"))) > 2
    assert_same(read_converted(folder / "sharded", framework), read_converted(folder, framework))


def test_googles_own_bert_has_other_names_and_what_its_optimizer_keeps(root):
    folder = root / TENSORFLOW / "bert"
    given = folder / "original" / "bert_model.ckpt.index"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = tritone.AutoModelForSequenceClassification.from_pretrained(
            given, from_tf=True, config=folder / "config.json"
        )
    assert_gives_what_it_gave(model, folder)


@pytest.mark.parametrize("framework", ARCHIVES)
def test_safetensors_of_another_framework_are_converted_unasked(framework, root):
    folder = root / framework / "distilbert"
    model = tritone.AutoModelForSequenceClassification.from_pretrained(folder / "safetensors")
    assert_gives_what_it_gave(model, folder)


@pytest.mark.parametrize("framework", ARCHIVES)
def test_safetensors_of_another_framework_may_be_in_shards(framework, root, tmp_path):
    folder = root / framework / "distilbert" / "safetensors"
    tensors = load_file(folder / "model.safetensors")
    homes = {}
    for number, names in enumerate((sorted(tensors)[::2], sorted(tensors)[1::2])):
        shard = f"model-0000{number + 1}-of-00002.safetensors"
        content = {name: tensors[name] for name in names}
        save_file(content, tmp_path / shard, metadata={"format": {TENSORFLOW: "tf", FLAX: "flax"}[framework]})
        homes |= {f"tf_distil_bert/{name}:0": shard for name in names}  # as there, unlike in the file
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": homes}))
    shutil.copy(folder / "config.json", tmp_path)
    model = tritone.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert_gives_what_it_gave(model, folder.parent)


# How they are asked for.


def test_the_factories_take_both_and_keep_the_arguments(root):
    tensorflow, flax = root / TENSORFLOW / "bert", root / FLAX / "bert"
    auto = tritone.AutoModelForSequenceClassification
    assert_gives_what_it_gave(auto.from_pretrained(tensorflow, from_tf=True), tensorflow)
    model = auto.from_pretrained(flax / "flax_model.msgpack", from_flax=True, dtype="bfloat16")
    assert (model.dtype, model.config.num_labels) == (torch.bfloat16, 3)
    model, report = auto.from_pretrained(
        tensorflow / "tf_model.h5", from_tf=True, output_loading_info=True, output_attentions=True
    )
    assert model.config.output_attentions
    assert not any(report.values())


@pytest.mark.parametrize(("framework", "name"), [(FLAX, "wav2vec2"), (TENSORFLOW, "wav2vec2_ctc")])
def test_an_encoder_and_a_decoder_make_one_model_that_is_saved_and_read_again(
    framework, name, root, tmp_path
):
    wave, text = root / framework / name, root / framework / "bert_decoder"
    asked = {
        f"{part}_{argument}": True for part in ("encoder", "decoder") for argument in ARGUMENTS[framework]
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Flax's decoder has no cross-attention, TensorFlow's encoder a head
        model = tritone.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(wave, text, **asked)
    encoder, decoder = read_converted(wave, framework), read_converted(text, framework)
    for part, tensors in ((model.encoder, encoder), (model.decoder, decoder)):
        state = part.state_dict()
        norms = {round(float(value.double().norm()), 5) for value in state.values()}
        missing = [
            key for key, value in tensors.items() if round(float(value.double().norm()), 5) not in norms
        ]
        assert all(key.startswith("lm_head.") for key in missing)
    if framework == FLAX:
        assert_gives_what_it_gave(model.encoder, wave)
    model.save_pretrained(tmp_path)
    again = tritone.SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert_same(again.state_dict(), model.state_dict())


def test_what_cannot_be_meant_is_refused_with_the_remedy(root, tmp_path):
    folder = root / FLAX / "bert"
    cls = tritone.BertForSequenceClassification
    with pytest.raises(ValueError, match="from_tf and from_flax are both set"):
        cls.from_pretrained(folder, from_tf=True, from_flax=True)
    with pytest.raises(
        FileNotFoundError, match=r"no weights of TensorFlow, none of model\.ckpt\.index.*from_tf"
    ):
        cls.from_pretrained(folder, from_tf=True)
    with pytest.raises(FileNotFoundError, match=r"\(flax_model\.msgpack\); give from_flax=True"):
        cls.from_pretrained(folder)
    with pytest.raises(FileNotFoundError, match=r"no file .*gone\.ckpt\.index"):
        cls.from_pretrained(tmp_path / "gone.ckpt.index", from_tf=True, config=cls.config_class())
    with pytest.raises(
        FileNotFoundError, match=r"none of .*; leave from_tf out, or give from_flax=True instead"
    ):
        cls.from_pretrained(folder, from_tf=True)
    tensorflow = root / TENSORFLOW / "bert" / "tf_model.h5"
    for given in (tensorflow, root / TENSORFLOW / "bert" / "index" / "model.ckpt"):
        with pytest.raises(ValueError, match="holds weights of TensorFlow; give from_tf=True to have them"):
            cls.from_pretrained(given)
        with pytest.raises(ValueError, match="of TensorFlow; give from_tf=True instead of from_flax"):
            cls.from_pretrained(given, from_flax=True)
    with pytest.raises(FileNotFoundError, match=r"no file 'https://.*index'.*; download it"):
        cls.from_pretrained("https://host/model.ckpt.index", from_tf=True, config=cls.config_class())


@pytest.mark.parametrize(
    ("module", "filename", "framework", "extra"),
    [
        ("h5py", "tf_model.h5", TENSORFLOW, "tensorflow"),
        ("google_crc32c", "model.ckpt.index", TENSORFLOW, "tensorflow"),
        ("msgpack", "flax_model.msgpack", FLAX, "flax"),
    ],
)
def test_without_its_package_the_error_says_what_to_install(
    module, filename, framework, extra, tmp_path, monkeypatch
):
    (tmp_path / filename).write_bytes(b"never read")
    monkeypatch.setitem(__import__("sys").modules, module, None)
    with pytest.raises(ImportError, match=rf"{filename} needs {module} .*pip install 'tritone\[{extra}\]'"):
        read_converted(tmp_path, framework)
