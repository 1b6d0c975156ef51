"""BERT's configuration, layers and checkpoints; conformance with transformers is in tests/conformance."""

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from loops import finish
from safetensors.torch import load_file, save_file
from text_families import BERT
from torch import Tensor
from training import assert_each_dropout_draws

import tritone
from tritone.models.bert.config import BertConfig
from tritone.models.bert.model import BertLMHeadModel, BertModel
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.model_protocol import Task
from tritone.scheduler.request import GenerationOptions, Request
from tritone.scheduler.runner import ModelRunner

DECODER = {**BERT, "is_decoder": True, "add_cross_attention": True}
TOKENS = torch.tensor([[4, 9, 0, 17, 30]])


def decoder(**fields: Any) -> BertLMHeadModel:
    torch.manual_seed(0)
    model = BertLMHeadModel(BertConfig(**{**DECODER, "initializer_range": 0.3, **fields}))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def encoded(rows: int = 1, count: int = 7) -> Tensor:
    return torch.randn(rows, count, 24, generator=torch.Generator().manual_seed(count))


def test_what_changes_nothing_is_taken_and_kept(tmp_path: Path) -> None:
    fields = {
        "position_embedding_type": "absolute",
        "chunk_size_feed_forward": 2,
        "cross_attention_hidden_size": 24,
        "gradient_checkpointing": False,
    }
    config = BertConfig(**BERT, **fields)
    config.save_pretrained(tmp_path)
    again = tritone.AutoConfig.from_pretrained(tmp_path)
    assert isinstance(again, BertConfig)
    assert {name: getattr(again, name) for name in fields} == fields


def test_cross_attention_is_for_decoders_alone() -> None:
    with pytest.raises(ValueError, match="set is_decoder=True"):
        BertModel(BertConfig(**BERT, add_cross_attention=True))


def test_a_model_without_cross_attention_refuses_an_encoders_output() -> None:
    model = BertLMHeadModel(BertConfig(**BERT, is_decoder=True))
    with pytest.raises(ValueError, match="add_cross_attention=True"):
        model(TOKENS, encoder_hidden_states=encoded())
    with pytest.raises(ValueError, match=r"\[batch, source, 24\]"):
        decoder()(TOKENS, encoder_hidden_states=torch.zeros(1, 3, 25))


def test_what_is_no_decoder_keeps_nothing_and_takes_no_past() -> None:
    model = BertModel(BertConfig(**BERT)).eval()
    assert model(TOKENS, use_cache=True).past_key_values is None
    past = decoder()(TOKENS, encoder_hidden_states=encoded()).past_key_values
    with pytest.raises(ValueError, match="is_decoder=True"):
        model(TOKENS, past_key_values=past)


def test_tokens_types_and_lengths_that_the_model_does_not_have_are_refused() -> None:
    model = decoder()
    with pytest.raises(ValueError, match="types 0 to 1"):
        model(TOKENS, token_type_ids=torch.full_like(TOKENS, 2))
    with pytest.raises(ValueError, match="types 0 to 1"):
        model.bert(TOKENS, token_type_ids=torch.full_like(TOKENS, -1))
    with pytest.raises(ValueError, match="tokens 0 to 30"):
        model(TOKENS + 1)
    with pytest.raises(ValueError, match="13 decoder tokens, and the model has 12 positions"):
        model(torch.zeros(1, 13, dtype=torch.int64))
    assert model.max_length == 12
    assert model.cache_shape == (2, 3, 8)


def test_a_padded_row_is_pooled_at_its_own_first_token() -> None:
    torch.manual_seed(0)
    model = BertModel(BertConfig(**BERT, initializer_range=0.3)).eval()
    mask = torch.tensor([[1, 1, 1, 1, 1], [0, 0, 1, 1, 1]])
    with torch.inference_mode():
        pooled = model(TOKENS.expand(2, -1), attention_mask=mask).pooler_output
        assert torch.equal(pooled[0], model(TOKENS).pooler_output[0])
        assert torch.equal(pooled[1], model(TOKENS[:, 2:]).pooler_output[0])
    assert not torch.allclose(pooled[0], pooled[1])


def test_dropout_is_drawn_in_training_everywhere_that_the_configuration_says() -> None:
    assert_each_dropout_draws(
        decoder,
        lambda model: model(TOKENS, encoder_hidden_states=encoded()).logits,
        ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    )


def test_a_step_of_training_moves_all_weights_but_the_padding_row() -> None:
    model = decoder(tie_word_embeddings=False).train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(TOKENS, encoder_hidden_states=encoded(), labels=TOKENS).loss.backward()
    optimizer.step()
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    # Softmax does not see the bias of keys. In a model whose weights are not tied, nothing reads the head's
    # own bias, as in transformers.
    assert {name for name in still if not name.endswith("key.bias")} == {"cls.predictions.bias"}
    words = "bert.embeddings.word_embeddings.weight"
    moved = (model.get_parameter(words) != before[words]).any(1)
    assert moved.nonzero()[:, 0].tolist() == [4, 9, 17]  # not 0, which is padding, nor 30, which is last


def test_tied_tensors_are_written_once(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors").keys()
    assert "cls.predictions.bias" in names
    assert not {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"} & names


def test_checkpoints_converted_from_tensorflow_load_without_a_warning(tmp_path: Path) -> None:
    model = decoder()
    model.save_pretrained(tmp_path)
    tensors = {}
    for name, tensor in load_file(tmp_path / "model.safetensors").items():
        name = name.replace("LayerNorm.weight", "LayerNorm.gamma")
        tensors[name.replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    assert sum(name.endswith("gamma") for name in tensors) == 8
    tensors["bert.embeddings.position_ids"] = torch.arange(12)[None]
    tensors["bert.pooler.dense.weight"] = torch.zeros(24, 24)
    tensors["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(tensors, tmp_path / "model.safetensors")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = BertLMHeadModel.from_pretrained(tmp_path)
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in model.state_dict().items())


def test_a_checkpoint_of_the_base_model_lacks_head_and_cross_attention_and_nothing_else(
    tmp_path: Path,
) -> None:
    torch.manual_seed(0)
    BertModel(BertConfig(**BERT)).save_pretrained(tmp_path)
    config = BertConfig(**DECODER)
    with pytest.warns(UserWarning, match="crossattention"):
        model, report = BertLMHeadModel.from_pretrained(tmp_path, config=config, output_loading_info=True)
    kinds = {"cross" if "crossattention" in name else name for name in report["missing_keys"]}
    assert {name for name in kinds if not name.startswith("cls.")} == {"cross"}
    assert "cls.predictions.transform.dense.weight" in kinds
    own = load_file(tmp_path / "model.safetensors")
    words = own["embeddings.word_embeddings.weight"]
    assert torch.equal(model.cls.predictions.decoder.weight, words)


def test_a_decoder_that_lost_some_of_its_cross_attention_is_damaged(tmp_path: Path) -> None:
    decoder().save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    lost = "bert.encoder.layer.1.crossattention.self.key.weight"
    del tensors[lost]
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=lost):
        BertLMHeadModel.from_pretrained(tmp_path)


def test_fresh_weights_have_the_configured_spread() -> None:
    torch.manual_seed(0)
    model = BertLMHeadModel(BertConfig(**{**DECODER, "hidden_size": 96, "initializer_range": 0.05}))
    spread = model.bert.encoder.layer[0].crossattention.self.key.weight.std()
    torch.testing.assert_close(spread, torch.tensor(0.05), rtol=0.1, atol=0)
    assert not model.bert.encoder.layer[0].output.dense.bias.any()
    assert not model.bert.embeddings.word_embeddings.weight[0].any()


def transcripts(model: Any, *, pages: int = 64) -> list[tuple[int, ...]]:
    """Results of greedy and beam search for two encoder outputs, through pages."""

    class Beside:
        task = Task.GENERATION

        def __getattr__(self, name: str) -> Any:
            return getattr(model, name)

        def encoder_length(self, frames: int) -> int:
            return frames

        def encode(self, features: Tensor, cu_frames: Tensor) -> tuple[Tensor, Tensor]:
            return features, cu_frames

    loop = GenerationLoop(ModelRunner(Beside(), num_pages=pages, num_slots=4, max_length=8))
    for index, (beams, count) in enumerate(((1, 7), (2, 3))):
        options = GenerationOptions(max_length=8, num_beams=beams, decoder_start_token_id=3)
        loop.submit(Request(index, encoded(1, count)[0].to(model.device), options))
    outputs = finish(loop)
    return [outputs[index].hypotheses[0].token_ids for index in sorted(outputs)]


def test_kernels_tell_the_same(kernels_on: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoder().to(kernels_on)
    told = transcripts(model)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert told == transcripts(model.cpu())
