"""Models with names of their own: found, checked, and chosen by the command and the engine."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import records, tritone_invoke

import tritone
from tritone.engine.builtin_models import DIGITS, ENGLISH, default_recognizer, named

TWO = Path(__file__).parents[2] / "samples" / "digits" / "two_digits_16k.wav"
INSTALLED = ENGLISH.find()


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the extra be absent, whether it is installed or not."""
    monkeypatch.setattr("tritone.engine.builtin_models.find_spec", lambda name: None)


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[], Path]:
    """Function that puts a package with empty files in the extra's place; returns its checkpoint folder."""

    def put() -> Path:
        folder = tmp_path / "site" / ENGLISH.package / "model"
        folder.mkdir(parents=True)
        (folder.parent / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
        for filename in ENGLISH.sums:
            (folder / filename).touch()
        monkeypatch.syspath_prepend(tmp_path / "site")
        return folder

    return put


def test_the_two_names_name_built_in_models_and_a_path_object_never_does():
    assert named("digits") is DIGITS
    assert named("english") is ENGLISH
    assert named("./digits") is None
    assert named(Path("english")) is None


def test_with_no_model_the_command_takes_english_where_it_is_installed(install):
    install()
    assert default_recognizer() == (ENGLISH, "the extra 'english' is installed")


def test_with_no_model_and_no_extra_the_command_takes_digits_and_says_why(absent):
    run = tritone_invoke("transcribe", TWO, "--device", "cpu", "--format", "jsonl")
    assert run.exit_code == 0
    assert '"model": "digits"' in run.stdout
    assert run.stderr.splitlines()[0] == (
        "tritone: no --model given: using the built-in digits model, which knows English digits only, "
        "since the extra 'english' is not installed: pip install 'tritone[english]'"
    )


def test_digits_is_the_built_in_model_beside_a_folder_of_that_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    output = tmp_path / "out.jsonl"
    run = tritone_invoke("transcribe", TWO, "--model", "digits", "--device", "cpu", "--output", output)
    assert run.exit_code == 0
    assert "no --model given" not in run.stderr
    assert [(line["text"], line["model"]) for line in records(output)] == [("four two", "digits")]
    with tritone.Engine("digits", device="cpu") as engine:
        assert engine.submit(TWO).result(timeout=60).text == "four two"
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        tritone.Engine("./digits", device="cpu")


def test_english_without_its_extra_is_an_error_with_the_remedy(absent):
    run = tritone_invoke("transcribe", TWO, "--model", "english", "--device", "cpu")
    assert run.exit_code == 2
    assert "'english' is not installed; install it: pip install 'tritone[english]'" in run.stderr
    with pytest.raises(FileNotFoundError, match="is not installed"):
        tritone.Engine("english", device="cpu")


def test_english_with_other_bytes_is_called_damaged_and_its_package_is_not_run(install):
    folder = install()
    with pytest.raises(
        ValueError, match=r"model\.bin is damaged: its SHA-256 is e3b0c4.*pip install --force"
    ):
        tritone.Engine("english", device="cpu")
    (folder / "model.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.bin"):
        tritone.Engine("english", device="cpu")
    assert ENGLISH.package not in sys.modules


@pytest.mark.skipif(INSTALLED is None, reason="needs the extra english")
def test_the_installed_english_has_the_checksums(tmp_path):
    assert ENGLISH.folder == INSTALLED
    copy = tmp_path / "copy"
    shutil.copytree(INSTALLED, copy)
    config = tritone.AutoConfig.from_pretrained(copy)
    assert (config.model_type, config.d_model, config.vocab_size) == ("whisper", 384, 51864)


def test_the_extra_brings_the_version_that_the_checksums_are_of():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    assert f'{ENGLISH.name} = ["{ENGLISH.requirement}"]' in project
