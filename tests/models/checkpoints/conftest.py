"""The smallest Speech2Text model, a folder in which it is saved, and one with its processor too."""

from pathlib import Path
from typing import Any

import factories
import pytest
import torch

import tritone


@pytest.fixture(scope="module")
def model() -> Any:
    torch.manual_seed(0)
    config = factories.smallest_speech_to_text_config(input_feat_per_channel=4)
    return tritone.Speech2TextForConditionalGeneration(config).eval()


@pytest.fixture
def folder(model, tmp_path) -> Path:
    model.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A folder with a model, its feature extractor and its tokenizer."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return factories.write_checkpoint(folder, **factories.SMALLEST_SPEECH_TO_TEXT)
