"""Defaults of decoding: from a checkpoint's files, or else transformers' own."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LENGTHS = (31, 60, 97)  # frames


@pytest.fixture
def folder(checkpoint: Callable[[str], Path], tmp_path: Path, edit_json: Callable[..., None]) -> Path:
    """A copy of a checkpoint, to be edited, with room for 200 tokens."""
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("two-convs"), copy)
    edit_json(copy / "config.json", max_target_positions=256)
    return copy


@pytest.fixture
def decode(load: Callable[[Path], Any]) -> Callable[..., list[list[int]]]:
    """Loads a folder in both libraries, decodes with both, asserts that they agree, returns the sequences."""

    def run(folder: Path, **call: Any) -> list[list[int]]:
        pair = load(folder)
        sequences = []
        for frames in LENGTHS:
            wanted = pair.theirs.generate(pair.features(frames), **call).tolist()
            assert pair.ours.generate(pair.features(frames), **call).tolist() == wanted, frames
            sequences += wanted
        return sequences

    return run


def test_without_any_word_on_length_twenty_new_tokens_come(
    folder: Path, decode: Callable[..., list[list[int]]]
) -> None:
    sequences = decode(folder)
    assert max(map(len, sequences)) == 21
    assert sequences == decode(folder, num_beams=1, do_sample=False)


def test_generation_config_json_is_followed(
    folder: Path, decode: Callable[..., list[list[int]]], edit_json: Callable[..., None]
) -> None:
    plain = decode(folder)
    options = {"num_beams": 3, "max_length": 40, "length_penalty": 2.0, "no_repeat_ngram_size": 3}
    edit_json(folder / "generation_config.json", **options)
    followed = decode(folder)
    assert followed != plain
    assert max(map(len, followed)) > 21


def test_an_old_repository_keeps_its_options_in_config_json(
    folder: Path, decode: Callable[..., list[list[int]]], edit_json: Callable[..., None]
) -> None:
    options = {"num_beams": 5, "max_length": 200, "early_stopping": True}
    called = decode(folder, **options)
    (folder / "generation_config.json").unlink()
    edit_json(folder / "config.json", **options)
    assert decode(folder) == called != decode(folder, num_beams=1)
    assert max(map(len, decode(folder, num_beams=1))) > 21


def test_options_in_config_json_do_not_count_beside_generation_config_json(
    folder: Path, decode: Callable[..., list[list[int]]], edit_json: Callable[..., None]
) -> None:
    plain = decode(folder)
    edit_json(folder / "config.json", num_beams=5, max_length=200)
    assert decode(folder) == plain


def test_the_call_goes_before_the_files(
    folder: Path, decode: Callable[..., list[list[int]]], edit_json: Callable[..., None]
) -> None:
    edit_json(folder / "generation_config.json", num_beams=4, max_length=30, repetition_penalty=1.5)
    in_file = decode(folder)
    plain = decode(folder, num_beams=1, max_length=12, repetition_penalty=1.0)
    assert plain != in_file
    assert max(map(len, plain)) == 12


@pytest.mark.parametrize(
    ("in_file", "call"),
    [
        ({"max_length": 9}, {"max_new_tokens": 14}),
        ({"max_new_tokens": 9}, {"max_new_tokens": 14}),
        ({"max_new_tokens": 9, "max_length": 14}, {}),
        ({"max_length": 9}, {"max_length": 14}),
        ({"min_length": 5}, {"min_new_tokens": 11}),
        ({"min_new_tokens": 11}, {"min_length": 5}),
        ({"min_new_tokens": 11, "min_length": 16}, {}),
    ],
)
def test_lengths_in_file_and_call_meet_as_in_transformers(
    in_file: dict[str, int],
    call: dict[str, int],
    folder: Path,
    decode: Callable[..., list[list[int]]],
    edit_json: Callable[..., None],
) -> None:
    edit_json(folder / "generation_config.json", **in_file)
    decode(folder, **call)


def test_several_end_tokens_in_the_file_and_none_agree(
    folder: Path, decode: Callable[..., list[list[int]]], edit_json: Callable[..., None]
) -> None:
    plain = decode(folder)
    edit_json(folder / "generation_config.json", eos_token_id=[2, 1, 20, 85])
    assert max(map(len, decode(folder))) < max(map(len, plain))
    edit_json(folder / "generation_config.json", eos_token_id=None)
    endless = decode(folder)
    assert {len(sequence) for sequence in endless} == {21}
    decode(folder, num_beams=3)


def test_a_length_in_the_call_goes_before_a_number_of_new_tokens_in_the_file(
    folder: Path, load: Callable[[Path], Any], edit_json: Callable[..., None]
) -> None:
    # Here Tritone differs: transformers warns and lets the file win.
    edit_json(folder / "generation_config.json", max_new_tokens=9)
    pair = load(folder)
    assert pair.ours.generate(pair.features(60), max_length=14).shape[1] == 14
