"""Text decoders beside an encoder, for tests: odd configurations of five families, in both libraries."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from parity import BERT_SIZES, ODD_BERT_SIZES, draw_weights, two_stacks
from torch import Tensor

import tritone

BERT = ("BertConfig", "BertLMHeadModel")
ROBERTA = ("RobertaConfig", "RobertaForCausalLM")
GPT2 = ("GPT2Config", "GPT2LMHeadModel")
BART = ("BartConfig", "BartForCausalLM")
MBART = ("MBartConfig", "MBartForCausalLM")
GPT2_SIZES = {"vocab_size": 61, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 40, "eos_token_id": 2}
UNTIED = {"tie_word_embeddings": False}
ODD_BERT = ODD_BERT_SIZES | UNTIED | {"type_vocab_size": 1}

# A family's configuration and model, and fields that are not its defaults. BART and MBart have at least as
# many encoder layers as decoder layers: transformers counts its cache's layers by those.
SPECS: dict[str, tuple[tuple[str, str], dict[str, Any]]] = {
    "bert": (BERT, BERT_SIZES),
    "bert-odd": (BERT, ODD_BERT | {"pad_token_id": None}),
    "bert-relu-one-head": (
        BERT,
        BERT_SIZES
        | {"hidden_act": "relu", "num_attention_heads": 1, "pad_token_id": 7, "type_vocab_size": 5},
    ),
    "roberta": (ROBERTA, BERT_SIZES),
    "roberta-odd": (ROBERTA, ODD_BERT | {"pad_token_id": 6}),
    "gpt2": (GPT2, GPT2_SIZES),
    "gpt2-odd": (
        GPT2,
        GPT2_SIZES
        | UNTIED
        | {
            "n_embd": 33,
            "n_head": 11,
            "n_inner": 50,
            "scale_attn_weights": False,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
        },
    ),
    "gpt2-by-layer": (
        GPT2,
        GPT2_SIZES
        | {
            "n_layer": 4,
            "n_inner": 23,
            "scale_attn_by_inverse_layer_idx": True,
            "reorder_and_upcast_attn": True,
        },
    ),
    "bart-odd": (
        BART,
        two_stacks(41, 21, layers=(3, 3), heads=(1, 3), feed_forward=(5, 19), max_position_embeddings=13),
    ),
    "bart-scaled-untied": (
        BART,
        two_stacks(30, 32, layers=(2, 1), heads=(2, 8), feed_forward=(7, 48), max_position_embeddings=33)
        | UNTIED
        | {"scale_embedding": True, "activation_function": "relu", "pad_token_id": 0, "bos_token_id": 1},
    ),
    "mbart-odd": (
        MBART,
        two_stacks(37, 15, layers=(2, 2), heads=(3, 5), feed_forward=(6, 23), max_position_embeddings=11)
        | {"scale_embedding": True},
    ),
    "mbart-untied": (
        MBART,
        two_stacks(53, 28, layers=(4, 4), heads=(1, 2), feed_forward=(4, 9), max_position_embeddings=20)
        | UNTIED
        | {"activation_function": "gelu_new"},
    ),
}
BART_NAMES = [name for name in SPECS if "bart" in name]
OTHER_NAMES = [name for name in SPECS if "bart" not in name]


@dataclass(frozen=True)
class Decoder:
    """One checkpoint in both libraries."""

    folder: Path
    theirs: Any
    ours: Any

    @property
    def config(self) -> Any:
        return self.theirs.config

    @property
    def family(self) -> str:
        return self.config.model_type

    @property
    def base(self) -> Any:
        """Their decoder without its head."""
        return self.theirs.model.decoder if "bart" in self.family else self.theirs.base_model

    def load(self, **fields: Any) -> tuple[Any, Any]:
        """Ours and theirs anew, with fields of the configuration replaced."""
        ours, theirs = (type(model).from_pretrained for model in (self.ours, self.theirs))
        return ours(self.folder, **fields), theirs(self.folder, attn_implementation="eager", **fields).eval()

    def tokens(self, count: int = 9, padding: bool = False) -> Tensor:
        """Tokens [1, count], different for every count; with two padding tokens where there is one."""
        draw = torch.Generator().manual_seed(count)
        tokens = torch.randint(8, self.config.vocab_size, (1, count), generator=draw)
        if padding and self.config.pad_token_id is not None:
            tokens[0, [3, 4]] = self.config.pad_token_id
        return tokens

    def encoded(self, count: int = 6) -> Tensor:
        """Encoder output [1, count, width], different for every count."""
        draw = torch.Generator().manual_seed(100 + count)
        return torch.randn(1, count, self.config.hidden_size, generator=draw)


def make_decoder(name: str, folder: Path) -> Decoder:
    """Write one of `SPECS` and load it in both libraries."""
    (config_name, model_name), given = SPECS[name]
    beside = {} if name in BART_NAMES else {"is_decoder": True, "add_cross_attention": True}
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(transformers, model_name)(getattr(transformers, config_name)(**given, **beside))
    draw_weights(model)
    model.save_pretrained(folder)
    theirs = type(model).from_pretrained(folder, attn_implementation="eager").eval()
    return Decoder(folder, theirs, getattr(tritone, model_name).from_pretrained(folder))
