"""Checkpoints on the Hub, fetched from a server on loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import Handler, Hub
from huggingface_hub import constants, file_download

import tritone

NAME = "somebody/s2t-tiny"
MODEL_FILES = {"config.json", "generation_config.json", "model.safetensors"}
PROCESSOR_FILES = {
    "preprocessor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "sentencepiece.bpe.model",
}


@pytest.fixture(autouse=True)
def _loopback_only(monkeypatch):
    connect = socket.socket.connect

    def guarded(self, address):
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), (
            f"a connection to {address}"
        )
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)


@pytest.fixture
def files(checkpoint) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in checkpoint.iterdir()}


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the endpoint, as HF_ENDPOINT does when huggingface_hub is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    for module in (constants, file_download):
        template = url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


@pytest.fixture
def hub(monkeypatch, tmp_path, files):
    """The server, with the checkpoint on it, huggingface_hub told to ask it, and an empty cache."""
    hub = Hub()
    hub.commit(NAME, files)
    point_to(hub.url, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    yield hub
    hub.stop()


def load(name: str = NAME, **options: Any) -> Any:
    return tritone.AutoModelForSpeechSeq2Seq.from_pretrained(name, **options)


def assert_same_weights(model: Any, checkpoint: Path) -> None:
    for name, tensor in load(os.fspath(checkpoint)).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_a_checkpoint_is_fetched_by_its_id_and_only_the_files_that_are_needed(hub, files, checkpoint):
    more = {"pytorch_model.bin": b"never read", "tf_model.h5": b"never read", "README.md": b"# s2t"}
    hub.commit(NAME, files | more)
    assert_same_weights(load(), checkpoint)
    assert sorted(hub.fetched()) == sorted(MODEL_FILES)
    hub.log.clear()
    processor = tritone.AutoProcessor.from_pretrained(NAME)
    assert processor.decode(processor(text="one two").input_ids) == "one two</s>"
    assert sorted(hub.fetched()) == sorted(PROCESSOR_FILES)
    hub.log.clear()
    load()
    assert hub.fetched() == []  # all of it is in the cache
    assert set(hub.fetched("HEAD")) == {"config.json"}  # whether main has moved


def test_every_class_loads_by_an_id(hub):
    assert type(tritone.AutoConfig.from_pretrained(NAME)) is tritone.Speech2TextConfig
    assert tritone.Speech2TextConfig.from_pretrained(NAME).d_model == 8
    assert tritone.AutoTokenizer.from_pretrained(NAME).eos_token_id == 2
    assert tritone.Speech2TextTokenizer.from_pretrained(NAME).eos_token_id == 2
    assert tritone.AutoFeatureExtractor.from_pretrained(NAME, padding_value=0.5).padding_value == 0.5
    assert tritone.Speech2TextProcessor.from_pretrained(NAME).feature_extractor.num_mel_bins == 80
    assert tritone.GenerationConfig.from_pretrained(NAME).decoder_start_token_id == 2
    assert tritone.Speech2TextModel.from_pretrained(NAME).config.d_model == 8


def test_a_process_of_its_own_asks_the_endpoint_of_its_environment_and_a_folder_needs_no_hub(
    hub, checkpoint, tmp_path
):
    code = (
        "import sys, tritone\n"
        "assert 'huggingface_hub' not in sys.modules and 'torch' not in sys.modules\n"
        f"tritone.AutoModelForSpeechSeq2Seq.from_pretrained({os.fspath(checkpoint)!r})\n"
        "assert 'huggingface_hub' not in sys.modules\n"
        f"model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained({NAME!r}, output_attentions=True)\n"
        f"print(model.config.output_attentions, len(tritone.AutoTokenizer.from_pretrained({NAME!r})))\n"
    )
    home = tmp_path / "home"
    tokens = len(json.loads((checkpoint / "vocab.json").read_text(encoding="utf-8")))
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(home)}
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env=environment,
        cwd=tmp_path,
        timeout=120,
    )
    assert (run.returncode, run.stdout) == (0, f"True {tokens}\n"), run.stderr
    assert (home / "hub" / "models--somebody--s2t-tiny" / "snapshots").is_dir()


def test_a_download_that_breaks_off_is_resumed_where_it_stopped(hub, checkpoint, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 512)  # of what arrives, to write; 10 MB otherwise
    hub.broken["model.safetensors"] = 5000
    assert_same_weights(load(), checkpoint)
    ranges = [ranged for how, path, ranged in hub.log if how == "GET" and path.endswith(".safetensors")]
    assert ranges[0] is None
    assert 4000 < int(re.fullmatch(r"bytes=(\d+)-", ranges[1])[1]) <= 5000
    assert len(ranges) == 2


def test_a_download_that_stays_broken_is_an_error_and_leaves_nothing_half_in_the_cache(
    hub, checkpoint, monkeypatch
):
    real_sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(min(seconds, 0.01)))
    monkeypatch.setattr(hub, "broken", type("Always", (dict,), {"pop": lambda self, name: 0})(hub.broken))
    hub.broken["model.safetensors"] = 0
    with pytest.raises(
        ConnectionError, match=r"the download of model.safetensors of 'somebody/s2t-tiny' on .* broke off"
    ):
        load()
    hub.broken.clear()
    assert_same_weights(load(), checkpoint)


def test_all_files_are_of_one_commit_even_if_the_branch_moves_meanwhile(hub, files, checkpoint):
    config = {**json.loads(files["config.json"]), "d_model": 16}
    head = Handler.do_HEAD

    class Moving(Handler):
        def do_HEAD(self) -> None:
            if self.path.endswith("generation_config.json") and len(hub.commits[NAME]) == 1:
                hub.commit(NAME, {"config.json": json.dumps(config).encode(), "model.safetensors": b"other"})
            head(self)

    Moving.hub = hub
    hub.server.RequestHandlerClass = Moving
    assert_same_weights(load(), checkpoint)
    assert len(hub.commits[NAME]) == 2


def test_a_revision_is_a_branch_a_tag_or_a_commit(hub, files):
    first = hub.branches[NAME]["main"]
    other = files | {"config.json": files["config.json"].replace(b'"dropout": 0.1', b'"dropout": 0.25')}
    hub.commit(NAME, other)
    hub.commit(NAME, other, branch="v1.0")
    assert load().config.dropout == 0.25
    assert load(revision="v1.0").config.dropout == 0.25
    assert load(revision=first).config.dropout == 0.1
    hub.log.clear()
    assert load(revision=first).config.dropout == 0.1
    assert hub.log == []  # a commit cannot change
    with pytest.raises(FileNotFoundError, match=r"has no revision 'v2\.0'; give a branch, tag or commit"):
        load(revision="v2.0")


def test_shards_are_fetched_each(hub, files, checkpoint, tmp_path):
    load(os.fspath(checkpoint)).save_pretrained(tmp_path / "shards", max_shard_size="4KB")
    shards = {path.name: path.read_bytes() for path in (tmp_path / "shards").iterdir()}
    assert len(shards) > 4
    hub.commit(NAME, shards | {"pytorch_model.bin": b"never read"})
    assert_same_weights(load(), checkpoint)
    assert sorted(hub.fetched()) == sorted(shards)


@pytest.mark.parametrize("shard", ["../../secret", "/etc/passwd", "a/b.safetensors", "..", ""])
def test_a_shard_outside_of_the_repository_is_not_asked_for(hub, files, shard):
    del files["model.safetensors"]
    index = json.dumps({"weight_map": {"model.encoder.layer_norm.bias": shard}}).encode()
    hub.commit(NAME, files | {"model.safetensors.index.json": index})
    with pytest.raises(ValueError, match="names a shard outside its folder"):
        load()
    assert not {"secret", "passwd", "b.safetensors"} & set(hub.fetched("HEAD") + hub.fetched())


def test_a_shard_that_the_repository_lacks_is_named(hub, files):
    del files["model.safetensors"]
    index = json.dumps({"weight_map": {"model.encoder.layer_norm.bias": "model-00001-of-00002.safetensors"}})
    hub.commit(NAME, files | {"model.safetensors.index.json": index.encode()})
    with pytest.raises(
        FileNotFoundError, match=r"has no model-00001-of-00002\.safetensors, which its index names"
    ):
        load()


def test_pickled_weights_are_fetched_where_there_is_nothing_else(hub, files, checkpoint, tmp_path):
    load(os.fspath(checkpoint)).save_pretrained(tmp_path / "bin", safe_serialization=False)
    hub.commit(NAME, {path.name: path.read_bytes() for path in (tmp_path / "bin").iterdir()})
    assert_same_weights(load(), checkpoint)
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors.*; leave use_safetensors out"):
        load(use_safetensors=True)


@pytest.mark.parametrize(
    ("name", "argument"), [("tf_model.h5", "from_tf"), ("flax_model.msgpack", "from_flax")]
)
def test_weights_of_another_framework_are_named_and_not_fetched_to_find_them(hub, files, name, argument):
    del files["model.safetensors"]
    hub.commit(NAME, files | {name: b"gigabytes"})
    with pytest.raises(FileNotFoundError, match=rf"\({name}\); give {argument}=True"):
        load()
    assert name not in hub.fetched()
    hub.stop()
    with pytest.raises(FileNotFoundError, match=r"the cache has no weights"):
        load(local_files_only=True)


def test_a_repository_that_is_none_is_named_with_the_remedy(hub):
    with pytest.raises(FileNotFoundError) as error:
        load("somebody/nothing")
    message = str(error.value)
    assert "no repository 'somebody/nothing' on http://127.0.0.1" in message
    assert "no folder of that name here; check the name, or give token= if it is private" in message
    assert len(message.splitlines()) == 1


def test_a_repository_without_the_file_is_named_with_it(hub, files):
    hub.commit("somebody/empty", {"README.md": b"# nothing"})
    with pytest.raises(FileNotFoundError, match=r"^somebody/empty has no config\.json"):
        load("somebody/empty")
    with pytest.raises(FileNotFoundError, match=r"^somebody/empty has no (config|vocab)\.json"):
        tritone.AutoProcessor.from_pretrained("somebody/empty")
    hub.commit("somebody/config", {"config.json": files["config.json"]})
    with pytest.raises(
        FileNotFoundError, match=r"^somebody/config has no weights, neither .*save the model as"
    ):
        load("somebody/config")
    hub.commit("somebody/flax", {"config.json": files["config.json"], "flax_model.msgpack": b""})
    with pytest.raises(FileNotFoundError, match=r"another framework \(flax_model\.msgpack\)"):
        load("somebody/flax")


def test_a_private_repository_wants_its_token(hub, checkpoint):
    hub.tokens[NAME] = "hf_secret"
    with pytest.raises(FileNotFoundError, match="give token= if it is private"):
        load()
    assert_same_weights(load(token="hf_secret"), checkpoint)


def test_a_gated_repository_says_so(hub):
    hub.gated.add(NAME)
    with pytest.raises(PermissionError, match="is gated; ask for access on its page"):
        load()


def test_the_cache_is_used_alone_if_asked_for(hub, checkpoint):
    with pytest.raises(
        FileNotFoundError, match=r"the cache has no config\.json of 'somebody/s2t-tiny' \(main\)"
    ):
        load(local_files_only=True)
    load()
    hub.log.clear()
    assert_same_weights(load(local_files_only=True), checkpoint)
    assert hub.log == []
    with pytest.raises(FileNotFoundError, match=r"the cache has no vocab\.json .* load it once without"):
        tritone.Speech2TextTokenizer.from_pretrained(NAME, local_files_only=True)
    with pytest.raises(ValueError, match="force_download=True and local_files_only=True exclude each other"):
        load(local_files_only=True, force_download=True)


def test_a_cache_of_ones_own_is_used(hub, tmp_path, checkpoint):
    load(cache_dir=tmp_path / "mine")
    assert (tmp_path / "mine" / "models--somebody--s2t-tiny").is_dir()
    assert not (tmp_path / "cache").exists()
    assert_same_weights(load(cache_dir=os.fspath(tmp_path / "mine"), local_files_only=True), checkpoint)


def test_force_download_fetches_each_file_again_once(hub):
    load()
    hub.log.clear()
    load(force_download=True)
    assert sorted(hub.fetched()) == sorted(MODEL_FILES)


def test_an_unreachable_hub_is_said_to_be_at_once_and_the_cache_is_enough(hub, checkpoint):
    load()
    hub.stop()
    start = time.monotonic()
    assert_same_weights(load(), checkpoint)
    with pytest.raises(ConnectionError) as error:
        load("somebody/other", resume_download=True)
    message = str(error.value)
    assert f"cannot get config.json of 'somebody/other' from {hub.url}" in message
    assert "Check the connection and HF_ENDPOINT, or give a local folder" in message
    assert len(message.splitlines()) <= 2
    with pytest.raises(ConnectionError, match=r"cannot get config\.json of 'somebody/s2t-tiny'"):
        load(force_download=True)
    assert time.monotonic() - start < 10  # huggingface_hub alone takes 23 s for each file


def test_offline_mode_uses_the_cache(hub, checkpoint, monkeypatch):
    load()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub.log.clear()
    assert_same_weights(load(), checkpoint)
    with pytest.raises(ConnectionError, match=r"cannot get config\.json of 'somebody/other' .*[Oo]ffline"):
        load("somebody/other")
    assert hub.log == []


def test_a_hub_that_fails_is_an_error_with_its_answer(hub, monkeypatch):
    real_sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: real_sleep(min(seconds, 0.01)))
    hub.status = 503
    with pytest.raises(ConnectionError, match=r"'somebody/s2t-tiny'"):
        load()
    hub.status = None
    load()
    hub.status = 503
    load()  # from the cache


def test_proxies_are_gone_through_for_the_time_of_the_call(hub, checkpoint, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    point_to("http://hub.invalid", monkeypatch)
    before = dict(os.environ)
    assert_same_weights(load(proxies={"http": hub.url.removeprefix("http://")}), checkpoint)
    assert sorted(hub.fetched()) == sorted(MODEL_FILES)
    assert dict(os.environ) == before
    with pytest.raises(ValueError, match="proxies has a proxy for 'ftp'; give them for http, https or all"):
        load(proxies={"ftp": "foo.bar:3128"})


@pytest.mark.parametrize(
    "name", ["./nowhere", "/nowhere/at/all", "a/b/c", "..", "some--body/x", "x y", "", "~/nowhere-"]
)
def test_a_name_that_can_be_no_id_sends_no_request(hub, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError):
        load(name)
    with pytest.raises(FileNotFoundError, match="no checkpoint folder"):
        load(Path("somebody/s2t-tiny"))  # a path is one
    assert hub.log == []


def test_no_code_of_a_checkpoint_is_run(hub, files):
    config = {**json.loads(files["config.json"]), "auto_map": {"AutoConfig": "code.Config"}}
    code = f"open({'ran'!r}, 'w')".encode()
    hub.commit(NAME, files | {"config.json": json.dumps(config).encode(), "code.py": code})
    classes = (
        *(
            tritone.AutoConfig,
            tritone.AutoModelForSpeechSeq2Seq,
            tritone.AutoProcessor,
            tritone.AutoTokenizer,
        ),
        *(
            tritone.AutoFeatureExtractor,
            tritone.Speech2TextForConditionalGeneration,
            tritone.Speech2TextConfig,
        ),
        *(tritone.Speech2TextTokenizer, tritone.Speech2TextFeatureExtractor, tritone.Speech2TextProcessor),
    )
    for kind in classes:
        with pytest.raises(ValueError, match="trust_remote_code=True is refused"):
            kind.from_pretrained(NAME, trust_remote_code=True)
    assert hub.log == []
    assert type(load(trust_remote_code=False)) is tritone.Speech2TextForConditionalGeneration
    assert "code.py" not in hub.fetched("HEAD")
    unknown = {**config, "model_type": "my_own"}
    hub.commit(NAME, files | {"config.json": json.dumps(unknown).encode()})
    with pytest.raises(ValueError, match=r"'my_own'; supported here: .*; its own code \(auto_map\) is"):
        load()


def test_loading_warns_of_nothing(hub):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load()
        tritone.AutoProcessor.from_pretrained(NAME)
