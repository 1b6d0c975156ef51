"""The package as a whole: its imports, its public names, and its peace with transformers."""

import subprocess
import sys
from pathlib import Path

import pytest

import tritone
from tritone.stub import STUB, stub

ROOT = Path(__file__).parents[1]


def python(code: str, *arguments: str, cwd: Path | None = None) -> str:
    """Standard output of a fresh process."""
    command = [sys.executable, "-c", code, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, cwd=cwd, timeout=120)
    assert run.returncode == 0, run.stderr
    return run.stdout


def test_importing_tritone_takes_under_a_fifth_of_a_second_and_nothing_large(tmp_path):
    code = (
        "import sys, time; start = time.perf_counter(); import tritone\n"
        "large = {'torch', 'huggingface_hub', 'safetensors'} & set(sys.modules)\n"
        "print(time.perf_counter() - start, len(large))"
    )
    runs = [python(code, cwd=tmp_path).split() for _ in range(4)]
    assert min(float(seconds) for seconds, _ in runs) < 0.2
    assert [large for _, large in runs] == ["0"] * 4


def test_a_familys_modules_are_imported_when_they_are_used(tmp_path):
    code = (
        "import sys, tritone; tritone.AutoModelForSpeechSeq2Seq\n"
        "print([name for name in sys.modules for family in tritone.models.registry.FAMILIES\n"
        "       if name.startswith(f'tritone.models.{family.folder}.')])"
    )
    assert python(code, cwd=tmp_path) == "[]\n"


@pytest.mark.parametrize("arguments", [["--help"], ["transcribe", "--help"], ["--version"]])
def test_help_and_version_do_not_import_torch(arguments, tmp_path):
    code = (
        "import sys; from tritone.__main__ import main\n"
        "sys.argv[0] = 'tritone'\n"
        "try: main()\n"
        "except SystemExit as end: print('exit', end.code)\n"
        "print('torch' in sys.modules, 'transformers' in sys.modules)"
    )
    lines = python(code, *arguments, cwd=tmp_path).splitlines()
    assert lines[-2:] == ["exit 0", "False False"]
    assert len(lines) > 2


@pytest.mark.parametrize("name", tritone.__all__)
def test_every_public_name_is_there(name):
    assert getattr(tritone, name) is not None
    assert name in dir(tritone)


def test_the_stub_names_what_the_package_does():
    assert STUB.read_text(encoding="utf-8") == stub(), "out of date: run `python -m tritone.stub`"


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Whisper'"):
        tritone.Whisper  # noqa: B018


def test_transformers_imports_from_the_repository_root():
    # It probes for a package called `kernels`, and finds our folder there.
    code = (
        "import transformers\n"
        "from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration\n"
        "print(Speech2TextConfig.__name__)"
    )
    assert python(code, cwd=ROOT) == "Speech2TextConfig\n"
