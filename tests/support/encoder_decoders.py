"""Tiny encoder-decoder models of speech: sizes of the parts by family, configurations, recordings."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from factories import seeded, tiny_bert_config, tiny_wav2vec2_config
from torch import Tensor

import tritone
from tritone.models.speech_encoder_decoder.config import SpeechEncoderDecoderConfig
from tritone.models.speech_encoder_decoder.model import SpeechEncoderDecoderModel

WAVE: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 30,
    "conv_dim": (8, 12, 16),
    "conv_stride": (5, 4, 4),
    "conv_kernel": (10, 7, 3),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 20,
}
BERT: dict[str, Any] = {
    "vocab_size": 53,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 30,
    "max_position_embeddings": 40,
}
GPT2: dict[str, Any] = {
    "vocab_size": 53,
    "n_embd": 24,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 40,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BART: dict[str, Any] = {
    "vocab_size": 53,
    "d_model": 20,
    "decoder_layers": 2,
    "encoder_layers": 2,
    "decoder_attention_heads": 2,
    "encoder_attention_heads": 2,
    "decoder_ffn_dim": 30,
    "encoder_ffn_dim": 30,
    "max_position_embeddings": 40,
}
DECODER = {"is_decoder": True, "add_cross_attention": True}
WORD_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "zero", "one", "two", "three", "##teen", "##ty"]


def join(encoder: Any, decoder: Any = None, **fields: Any) -> SpeechEncoderDecoderConfig:
    """Configuration of an encoder with a decoder, BERT by default."""
    decoder = tritone.BertConfig(**BERT) if decoder is None else decoder
    return SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **fields)


def make_config(**fields: Any) -> SpeechEncoderDecoderConfig:
    """A wav2vec 2.0 encoder with a BERT decoder."""
    return join(tritone.Wav2Vec2Config(**WAVE), **fields)


def make_parts() -> tuple[tritone.Wav2Vec2Model, tritone.BertLMHeadModel]:
    """Such an encoder and decoder."""
    return (
        tritone.Wav2Vec2Model(tritone.Wav2Vec2Config(**WAVE)),
        tritone.BertLMHeadModel(tritone.BertConfig(**BERT, **DECODER)),
    )


def make(**fields: Any) -> SpeechEncoderDecoderModel:
    """A model with fresh weights, in evaluation mode."""
    torch.manual_seed(0)
    return SpeechEncoderDecoderModel(make_config(**fields)).eval()


def wave(samples: int = 1700) -> Tensor:
    """A waveform [1, samples]."""
    return torch.randn(1, samples, generator=torch.Generator().manual_seed(samples))


TOKENS = torch.tensor([[3, 17, 30, 8]])


def write_checkpoint(folder: Path) -> Path:
    """A wav2vec 2.0 encoder with a BERT decoder, its feature extractor and tokenizer."""
    (folder / "vocab.txt").write_text("\n".join(WORD_PIECES))
    tritone.BertTokenizer(folder / "vocab.txt").save_pretrained(folder)
    tritone.Wav2Vec2FeatureExtractor().save_pretrained(folder)
    decoder = tiny_bert_config(
        vocab_size=len(WORD_PIECES),
        hidden_size=20,
        num_attention_heads=2,
        intermediate_size=30,
        max_position_embeddings=40,
    )
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        tiny_wav2vec2_config(vocab_size=32), decoder
    )
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    model = seeded(partial(SpeechEncoderDecoderModel, config=config), seed=4)
    model.save_pretrained(folder)
    return folder
