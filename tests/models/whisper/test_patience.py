"""Patience of Whisper's beam search, against CTranslate2's rule written out, and its refusals."""

from pathlib import Path
from typing import Any

import pytest
import torch
from factories import seeded, tiny_speech_to_text_config
from torch import Tensor
from whisper_checkpoints import recording, write_whisper_checkpoint

import tritone

BEAMS, NEW_TOKENS = 3, 12


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_whisper_checkpoint(tmp_path_factory.mktemp("whisper"), multilingual=False)
    model = tritone.WhisperForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        model.proj_out.weight[model.config.eos_token_id] *= 2.0  # ends more often
    model.save_pretrained(folder)
    return folder


def features() -> Tensor:
    draw = torch.Generator().manual_seed(3)
    return torch.nn.functional.interpolate(torch.randn(12, 8, 14, generator=draw), size=100, mode="linear")


@torch.inference_mode()
def searched(model: Any, inputs: Tensor, enough: int) -> list[int]:
    """Tokens of the best hypothesis of a search that ends with `enough` of them."""
    options = model.resolve_options(num_beams=BEAMS)
    end, prompt = options.eos_token_ids[0], list(options.prompt)
    beams, ended = [(0.0, prompt)], []
    for step in range(NEW_TOKENS):
        ids = torch.tensor([tokens for _, tokens in beams])
        logits = model(inputs.expand(len(beams), -1, -1), decoder_input_ids=ids).logits[:, -1]
        scores = logits.log_softmax(-1)
        scores[:, list(options.suppress_tokens)] = -torch.inf
        scores += torch.tensor([score for score, _ in beams])[:, None]
        best = scores.flatten().topk(2 * BEAMS)
        candidates = [
            (value, [*beams[index // scores.shape[1]][1], index % scores.shape[1]])
            for value, index in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]
        for score, tokens in candidates[:BEAMS]:
            if tokens[-1] == end or step == NEW_TOKENS - 1:
                ended.append((score / (len(tokens) - len(prompt)), tokens[len(prompt) :]))
        if len(ended) >= enough:
            break
        beams = [one for one in candidates if one[1][-1] != end][:BEAMS]
    chosen = max(ended, key=lambda one: one[0])[1]
    return [token for token in chosen if token != end]


def test_a_search_ends_with_so_many_hypotheses_as_in_ctranslate2(checkpoint: Path) -> None:
    model = tritone.WhisperForConditionalGeneration.from_pretrained(checkpoint)
    inputs, found = features(), {}
    for patience, enough in ((0.4, 1), (1, 3), (1.5, 5), (2.0, 6)):
        rows = model.generate(inputs, num_beams=BEAMS, max_new_tokens=NEW_TOKENS, patience=patience)
        end = model.config.eos_token_id
        found[patience] = [[token for token in row if token != end] for row in rows.tolist()]
        assert found[patience] == [searched(model, one[None], enough) for one in inputs]
    assert found[0.4] != found[1] != found[2.0]
    early = model.generate(inputs, num_beams=BEAMS, max_new_tokens=NEW_TOKENS, early_stopping=True)
    once = model.generate(inputs, num_beams=BEAMS, max_new_tokens=NEW_TOKENS, patience=1)
    assert torch.equal(early, once)


def test_requests_of_several_patiences_mix_in_one_batch(checkpoint: Path) -> None:
    patiences = [None, 0.4, 1, 2, 10]
    with tritone.Engine(checkpoint, device="cpu") as engine:
        given = [
            (
                recording(0.9, seed),
                {"num_beams": BEAMS, "patience": patiences[seed % 5], "temperature": [0, 0.8]},
            )
            for seed in range(15)
        ]
        together = [engine.submit(sound, **options) for sound, options in given]
        texts = [handle.result().token_ids for handle in together]
        assert texts == [engine.submit(sound, **options).result().token_ids for sound, options in given]


def test_patience_without_beams_or_beside_another_rule_is_refused(checkpoint: Path) -> None:
    model = tritone.WhisperForConditionalGeneration.from_pretrained(checkpoint)
    with pytest.raises(
        ValueError, match=r"patience 2\.0 is a rule of beam search, and num_beams is 1; use more"
    ):
        model.generate(features(), patience=2)
    with pytest.raises(ValueError, match=r"patience 2\.0 and early_stopping True both end a beam search"):
        model.generate(features(), num_beams=2, patience=2, early_stopping=True)
    with pytest.raises(ValueError, match=r"patience is 101\.0; it must be above 0, at most 100"):
        model.generate(features(), num_beams=2, patience=101)


def test_other_families_refuse_patience_with_the_remedy() -> None:
    model = seeded(tritone.Speech2TextForConditionalGeneration, tiny_speech_to_text_config())
    with pytest.raises(ValueError, match="patience is Whisper's alone; leave it out: early_stopping=True"):
        model.generate(torch.zeros(1, 40, 80), num_beams=2, patience=1)


def test_a_file_may_set_patience(tmp_path: Path) -> None:
    folder = write_whisper_checkpoint(tmp_path, patience=2.0, num_beams=2)
    model = tritone.WhisperForConditionalGeneration.from_pretrained(folder)
    assert model.resolve_options().patience == 2.0


@pytest.mark.parametrize("heads", [[[2, 0]], [[1, 2]], [[0, 0], [1, None]]])
def test_alignment_heads_that_the_model_does_not_have_are_refused_when_loading(
    heads: list[Any], tmp_path: Path
) -> None:
    folder = write_whisper_checkpoint(tmp_path, alignment_heads=heads)
    with pytest.raises(
        ValueError, match=r"generation_config\.json: alignment_heads .* must be pairs of one of 2"
    ):
        tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)


def test_a_checkpoint_with_an_empty_list_of_alignment_heads_has_none(tmp_path: Path) -> None:
    model = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(
        write_whisper_checkpoint(tmp_path, alignment_heads=[])
    )
    assert not model.has_alignment_heads
    with pytest.raises(ValueError, match=r"need alignment_heads, and generation_config\.json has none"):
        _ = model.alignment_heads
