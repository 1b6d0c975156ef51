"""Vocabularies of every family, and tokenizers of them beside transformers'."""

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tokenizer_checks import (
    CASES,
    SENTENCEPIECE,
    Vocabulary,
    train_sentencepiece,
    train_vocabularies,
    transformers,
)


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[type, Path]:
    """A folder with a spiece.model for each family that has one."""
    folders = {kind: tmp_path_factory.mktemp(kind.__name__) for kind in SENTENCEPIECE}
    for kind, folder in folders.items():
        train_sentencepiece(folder / "spiece.model", **SENTENCEPIECE[kind])
    return folders


@pytest.fixture(scope="session")
def vocabularies(folders) -> dict[type, Vocabulary]:
    return train_vocabularies(folders)


@pytest.fixture(scope="module", params=CASES, ids=[f"{kind.__name__}-{options}" for kind, options in CASES])
def both(request, vocabularies) -> tuple[Any, Any]:
    """Tritone's tokenizer of a family with some options, and transformers'."""
    kind, options = request.param
    return vocabularies[kind].both(kind, **options)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    transformers.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="clean_up_tokenization_spaces has no effect")
        yield
