"""Hidden states and logits against transformers at batch size 1."""

from typing import Any

import pytest
import torch
from parity import assert_close, pad_rows
from torch import Tensor

LENGTHS = (1, 2, 3, 8, 9, 16, 33, 97, 250)  # frames; the subsampler's edges show in the short ones


@pytest.fixture
def target(pair: Any) -> Tensor:
    """Decoder tokens [1, 23], some of them the padding token."""
    config = pair.theirs.config
    draw = torch.Generator().manual_seed(7)
    tokens = torch.randint(config.vocab_size, (1, 23), generator=draw)
    tokens[0, 0] = config.decoder_start_token_id
    tokens[0, [4, 5, 11]] = config.pad_token_id
    return tokens


@torch.inference_mode()
def test_the_encoder_agrees_at_every_length(pair: Any) -> None:
    for frames in LENGTHS:
        features = pair.features(frames)
        wanted = pair.theirs.model.encoder(features).last_hidden_state[0]
        packed, cu_tokens = pair.ours.encode(features[0], torch.tensor([0, frames], dtype=torch.int32))
        assert cu_tokens.tolist() == [0, wanted.shape[0]]
        assert pair.ours.encoder_length(frames) == wanted.shape[0]
        assert_close(packed, wanted)
        assert wanted.std() > 0.1  # so that the tolerance means something


@torch.inference_mode()
def test_teacher_forced_logits_agree_at_every_length(pair: Any, target: Tensor) -> None:
    for frames in LENGTHS:
        features = pair.features(frames)
        wanted = pair.theirs(features, decoder_input_ids=target).logits
        logits = pair.ours(features, decoder_input_ids=target).logits
        assert_close(logits, wanted)
        assert 0.5 < wanted.std() < 10


@torch.inference_mode()
def test_logits_of_a_padded_batch_agree_with_each_recording_alone(pair: Any, target: Tensor) -> None:
    recordings = [pair.features(frames) for frames in LENGTHS]
    padded, mask = pad_rows([features[0] for features in recordings], 9.0, "right")  # 9 must not be read
    logits = pair.ours(padded, mask, decoder_input_ids=target.expand(len(LENGTHS), -1)).logits
    for row, features in zip(logits, recordings, strict=True):
        wanted = pair.theirs(features, decoder_input_ids=target).logits[0]
        assert_close(row, wanted)


@torch.inference_mode()
def test_logits_of_every_generated_token_agree(pair: Any, run_loop: Any, make_request: Any) -> None:
    for index, frames in enumerate((31, 97, 250)):
        features = pair.features(frames)
        wanted = pair.theirs.generate(
            features, max_length=40, min_length=40, output_logits=True, return_dict_in_generate=True
        )
        run = run_loop(pair.ours, [make_request(pair, index, features, max_length=40, min_length=40)])
        assert list(run.completions[index].hypotheses[0].token_ids) == wanted.sequences[0].tolist()
        assert len(wanted.logits) == 39  # over two pages of the cache
        assert_close(run.logits[index], wanted.logits)
