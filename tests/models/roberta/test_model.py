"""RoBERTa's differences from BERT; conformance with transformers is in tests/conformance."""

from functools import partial
from pathlib import Path

import pytest
import torch
from text_families import make

import tritone
from tritone.models.roberta.config import RobertaConfig
from tritone.models.roberta.model import RobertaModel

decoder = partial(make, "Roberta", "ForCausalLM", is_decoder=True)


def test_positions_are_counted_from_behind_the_padding_tokens() -> None:
    model = decoder(pad_token_id=4)
    assert model.max_length == 7
    tokens = torch.tensor([[9, 4, 8, 7, 6, 5, 3, 2]])  # seven, and a padding token, which takes no position
    assert model(tokens).logits.shape == (1, 8, 31)
    with pytest.raises(ValueError, match="8 decoder tokens, and the model has 7 positions"):
        model(tokens.masked_fill(tokens == 4, 11))


def test_the_padding_tokens_position_learns_nothing() -> None:
    model = decoder(pad_token_id=2).train()
    tokens = torch.tensor([[9, 2, 8, 7]])  # logits after the last one count for nothing
    model(tokens, labels=tokens).loss.backward()
    learns = model.roberta.embeddings.position_embeddings.weight.grad.any(1)
    assert learns.nonzero()[:, 0].tolist() == [3, 4]


def test_the_heads_activation_is_not_the_layers() -> None:
    wide = torch.full((2, 24), 3.0)
    assert torch.equal(decoder().lm_head(wide), decoder(hidden_act="relu").lm_head(wide))


def test_a_checkpoint_is_known_by_its_type_and_no_other_model_takes_it(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path)
    assert type(tritone.AutoConfig.from_pretrained(tmp_path)) is RobertaConfig
    assert isinstance(RobertaModel.from_pretrained(tmp_path, False), RobertaModel)
    with pytest.raises(ValueError, match="'roberta' model, not 'bert'"):
        tritone.BertLMHeadModel.from_pretrained(tmp_path)
