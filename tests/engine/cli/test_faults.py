"""The command on a checkpoint whose tokenizer panics in its library."""

import subprocess
import sys

from text_classifiers import write_classifier
from tokenizer_checks import train_sentencepiece

from tritone.models.tokenizers.sentencepiece_model import read_sentencepiece


def test_a_tokenizer_that_panics_fails_its_texts_and_nothing_hangs(tmp_path):
    write_classifier("t5-gated", "ForSequenceClassification", tmp_path, vocab_size=150)
    path = tmp_path / "spiece.model"
    content = bytearray(train_sentencepiece(path))
    rules = read_sentencepiece(path).charsmap
    start = content.index(rules) + 4
    size = int.from_bytes(rules[:4], "little")
    content[start : start + size] = b"\xa5" * size  # the trie leads beyond its end
    path.write_bytes(content)
    command = [sys.executable, "-m", "tritone", "classify", "--text", "--model", tmp_path, "one", "two"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (run.stdout, run.returncode) == ("", 1)
    assert "'one': a library has stopped with PanicException (index out of bounds" in run.stderr
    assert "2 texts in" in run.stderr
    assert "2 failed" in run.stderr
