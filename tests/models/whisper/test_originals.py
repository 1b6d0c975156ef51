"""Whisper models of CTranslate2 and of openai: the tensors and files of transformers' checkpoint."""

import json
from pathlib import Path

import pytest
import torch
from ctranslate2_files import SIZES, ctranslate2_folder, openai_file
from torch import Tensor

from tritone.models.checkpoints.files import open_checkpoint
from tritone.models.checkpoints.weights import read_weights
from tritone.models.whisper.vocabulary import ALIGNMENT_HEADS, SpecialTokens


@pytest.fixture(scope="module", params=[51864, 51866])
def reference(request: pytest.FixtureRequest) -> dict[str, Tensor]:
    """Weights of a tiny Whisper by transformers' names, English or multilingual."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(5)
    ids = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 1)
    config = WhisperConfig(vocab_size=request.param, **SIZES, **ids)
    state = WhisperForConditionalGeneration(config).state_dict()
    return {name: tensor for name, tensor in state.items() if name != "proj_out.weight"}


@pytest.mark.parametrize("kind", ["ctranslate2", "openai"])
def test_the_weights_and_sizes_are_those_of_transformers(
    kind: str, reference: dict[str, Tensor], tmp_path: Path
) -> None:
    where = (
        ctranslate2_folder(tmp_path / "model", reference)
        if kind == "ctranslate2"
        else openai_file(tmp_path / "tiny.pt", reference)
    )
    checkpoint, _ = open_checkpoint(where)
    config = json.loads(checkpoint.require("config.json").read_text())
    assert {name: config[name] for name in SIZES} == SIZES
    for _ in range(2):  # also where the weights are asked for again
        tensors = read_weights(checkpoint)
        assert tensors.keys() == reference.keys()
        assert all(torch.equal(tensor, reference[name]) for name, tensor in tensors.items())
    generation = json.loads(checkpoint.require("generation_config.json").read_text())
    # The heads known by the name "tiny" are those of four layers of six; these are the last half of three.
    last_half = [[layer, head] for layer in (1, 2) for head in range(4)]
    expected = [[1, 0]] if kind == "ctranslate2" else last_half
    assert generation["alignment_heads"] == expected
    tokens = SpecialTokens.of_vocabulary(config["vocab_size"])
    assert generation["is_multilingual"] == tokens.is_multilingual == ("lang_to_id" in generation)
    assert config["decoder_start_token_id"] == tokens.start


def test_alignment_heads_of_openais_file_are_known_by_its_name_where_the_model_has_them(
    reference: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALIGNMENT_HEADS, "tiny", [[1, 3], [2, 0]])
    checkpoint, _ = open_checkpoint(openai_file(tmp_path / "tiny.pt", reference))
    generation = json.loads(checkpoint.require("generation_config.json").read_text())
    assert generation["alignment_heads"] == [[1, 3], [2, 0]]


def test_special_tokens_are_where_the_published_vocabularies_have_them() -> None:
    english, multilingual, large = map(SpecialTokens.of_vocabulary, (51864, 51865, 51866))
    assert (english.end, english.start, english.no_speech, english.no_timestamps) == (
        50256,
        50257,
        50361,
        50362,
    )
    assert (multilingual.end, multilingual.languages["<|en|>"], multilingual.transcribe) == (
        50257,
        50259,
        50359,
    )
    assert (large.languages["<|yue|>"], large.translate, large.no_timestamps) == (50358, 50359, 50364)
    with pytest.raises(ValueError, match="51000 tokens"):
        SpecialTokens.of_vocabulary(51000)


@pytest.mark.parametrize("reference", [51864], indirect=True)
def test_a_wrong_file_is_refused_by_name(reference: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "tiny.en.pt"
    torch.save({"model_state_dict": reference}, path)
    with pytest.raises(ValueError, match="has no dims"):
        open_checkpoint(path)[0].require("config.json")
    openai_file(path, reference | {"model.encoder.other": torch.ones(1)})
    with pytest.raises(ValueError, match=r"encoder\.other"):
        open_checkpoint(path)[0].require("config.json")
    folder = ctranslate2_folder(tmp_path / "model", reference)
    (folder / "config.json").write_text('{"suppress_ids": "x"}')
    with pytest.raises(ValueError, match="suppress_ids must be a list"):
        open_checkpoint(folder)[0].require("config.json")
