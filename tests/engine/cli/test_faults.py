"""The command on a checkpoint whose tokenizer panics in its library."""

import subprocess
import sys

import pytest
from text_classifiers import write_classifier
from tokenizer_checks import train_sentencepiece

from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece

# The check of the trie at loading left out, as for a damage that it does not know.
UNCHECKED = """
import sys
from tritone.models.tokenizers import charsmap
charsmap.check_charsmap = lambda *given: None
from tritone.__main__ import main
sys.argv[0] = "tritone"
main()
"""


@pytest.fixture
def damaged(tmp_path):
    """A T5 classifier whose normalization rules lead beyond their end."""
    write_classifier("t5-gated", "ForSequenceClassification", tmp_path, vocab_size=150)
    path = tmp_path / "spiece.model"
    content = bytearray(train_sentencepiece(path))
    rules = read_sentencepiece(path).charsmap
    start = content.index(rules) + 4
    size = int.from_bytes(rules[:4], "little")
    content[start : start + size] = b"\xa5" * size
    path.write_bytes(content)
    return tmp_path


def classify(checkpoint, *program):
    command = [sys.executable, *program, "classify", "--text", "--model", checkpoint, "one", "two"]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_tokenizer_file_that_would_panic_is_refused_by_name(damaged):
    run = classify(damaged, "-m", "tritone")
    assert (run.stdout, run.returncode) == ("", 2)
    assert "spiece.model" in run.stderr
    assert "Traceback" not in run.stderr


def test_a_tokenizer_that_panics_fails_its_texts_and_nothing_hangs(damaged):
    run = classify(damaged, "-c", UNCHECKED)
    assert (run.stdout, run.returncode) == ("", 1)
    assert "PanicException" in run.stderr or "panicked" in run.stderr
    assert "2 texts in" in run.stderr
    assert "2 failed" in run.stderr
