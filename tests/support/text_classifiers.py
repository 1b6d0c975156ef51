"""Classifiers of text for tests: odd configurations of nine families, and both libraries' model of each."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from parity import BERT_SIZES, ODD_BERT_SIZES, draw_weights, two_stacks
from torch import Tensor

import tritone

BERT = BERT_SIZES | {"num_labels": 3}
ODD_BERT = ODD_BERT_SIZES | {"num_labels": 17}
ODD_TYPES = {"type_vocab_size": 3, "classifier_dropout": 0.3}
DISTILBERT = {
    "vocab_size": 61,
    "dim": 36,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 50,
    "max_position_embeddings": 40,
}
GPT2 = {"vocab_size": 61, "n_embd": 36, "n_layer": 2, "n_head": 3, "n_positions": 150}
GPT_NEO = {
    "vocab_size": 61,
    "hidden_size": 36,
    "num_layers": 3,
    "attention_types": [[["local", "global", "local"], 1]],
    "num_heads": 3,
    "intermediate_size": 50,
    "window_size": 5,
    "max_position_embeddings": 150,
}
XLNET = {"vocab_size": 61, "d_model": 36, "n_layer": 2, "n_head": 3, "d_inner": 50}
T5 = {"vocab_size": 43, "num_layers": 2, "relative_attention_max_distance": 11, "decoder_start_token_id": 0}

# A family's name in its classes, and fields that are not its defaults.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("Bert", BERT),
    "bert-odd": ("Bert", ODD_BERT | ODD_TYPES | {"pad_token_id": None}),
    "roberta": ("Roberta", BERT | {"type_vocab_size": 2}),
    "roberta-odd": ("Roberta", ODD_BERT | ODD_TYPES | {"pad_token_id": 6}),
    "albert": ("Albert", BERT | {"embedding_size": 13}),
    "albert-groups": (
        "Albert",
        ODD_BERT
        | {
            "type_vocab_size": 3,
            "embedding_size": 50,
            "num_hidden_layers": 5,
            "num_hidden_groups": 3,
            "inner_group_num": 2,
            "hidden_act": "relu",
            "hidden_dropout_prob": 0.2,
        },
    ),
    "distilbert": ("DistilBert", DISTILBERT | {"num_labels": 3}),
    "distilbert-odd": (
        "DistilBert",
        {
            "vocab_size": 83,
            "dim": 33,
            "n_layers": 3,
            "n_heads": 11,
            "hidden_dim": 17,
            "max_position_embeddings": 57,
            "activation": "relu",
            "sinusoidal_pos_embds": True,
            "pad_token_id": 6,
            "num_labels": 17,
        },
    ),
    "gpt2": ("GPT2", GPT2 | {"pad_token_id": 7, "num_labels": 5}),
    "gpt2-odd": (
        "GPT2",
        GPT2
        | {
            "n_embd": 33,
            "n_head": 11,
            "n_inner": 23,
            "scale_attn_by_inverse_layer_idx": True,
            "activation_function": "relu",
            "pad_token_id": 0,
        },
    ),
    "gpt-neo": ("GPTNeo", GPT_NEO | {"pad_token_id": 7, "num_labels": 5}),
    "gpt-neo-odd": (
        "GPTNeo",
        GPT_NEO
        | {
            "hidden_size": 33,
            "num_heads": 11,
            "intermediate_size": None,
            "num_layers": 4,
            "attention_types": [[["global", "local"], 1], [["local"], 2]],
            "window_size": 1,
            "activation_function": "relu",
            "layer_norm_epsilon": 1e-3,
            "pad_token_id": 0,
        },
    ),
    "gpt-neo-global": (
        "GPTNeo",
        GPT_NEO | {"attention_types": [[["global"], 3]], "pad_token_id": 7, "num_labels": 1},
    ),
    "xlnet": ("XLNet", XLNET | {"num_labels": 5}),
    "xlnet-odd": (
        "XLNet",
        XLNET
        | {
            "d_model": 66,
            "n_head": 11,
            "attn_type": "uni",
            "clamp_len": 6,
            "ff_activation": "relu",
            "summary_activation": "",
            "layer_norm_eps": 1e-3,
            "mem_len": 4,
            "reuse_len": 7,
        },
    ),
    "xlnet-mean-clamped": (
        "XLNet",
        XLNET
        | {
            "clamp_len": 3,
            "summary_type": "mean",
            "summary_activation": "gelu",
            "mem_len": None,
            "num_labels": 1,
        },
    ),
    "xlnet-first-no-proj": (
        "XLNet",
        XLNET | {"n_head": 1, "summary_type": "first", "summary_use_proj": False, "use_mems_eval": False},
    ),
    "xlnet-itself-alone": (
        "XLNet",
        XLNET | {"attn_type": "uni", "same_length": True, "summary_type": "cls_index"},
    ),
    "bart-odd": (
        "Bart",
        two_stacks(41, 21, layers=(3, 2), heads=(3, 1), feed_forward=(11, 19), max_position_embeddings=70),
    ),
    "bart-scaled-untied": (
        "Bart",
        two_stacks(30, 32, layers=(1, 2), heads=(2, 8), feed_forward=(7, 48), max_position_embeddings=70)
        | {
            "scale_embedding": True,
            "activation_function": "relu",
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 5,
            "decoder_start_token_id": 7,
            "tie_word_embeddings": False,
            "num_labels": 4,
        },
    ),
    "t5-odd": (
        "T5",
        T5
        | {
            "d_model": 21,
            "d_kv": 5,
            "d_ff": 19,
            "num_decoder_layers": 3,
            "num_heads": 3,
            "relative_attention_num_buckets": 7,
            "num_labels": 5,
        },
    ),
    "t5-gated": (
        "T5",
        T5
        | {
            "vocab_size": 37,
            "d_model": 32,
            "d_kv": 16,
            "d_ff": 40,
            "num_layers": 3,
            "num_heads": 4,
            "relative_attention_max_distance": 40,
            "feed_forward_proj": "gated-gelu",
            "tie_word_embeddings": False,
            "layer_norm_epsilon": 1e-3,
            "pad_token_id": 3,
            "eos_token_id": 4,
            "decoder_start_token_id": 3,
            "num_labels": 4,
        },
    ),
}
# Fields of the smallest model of each family.
STACK = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 20}
TINY: dict[str, dict[str, Any]] = {
    "Albert": STACK | {"embedding_size": 10},
    "Bart": two_stacks(40, 24, layers=(1, 2), heads=(3, 2), feed_forward=(20, 12)),
    "Bert": STACK,
    "DistilBert": {"dim": 24, "n_layers": 2, "n_heads": 3, "hidden_dim": 20},
    "GPT2": {"n_embd": 24, "n_layer": 2, "n_head": 3},
    "GPTNeo": {
        "hidden_size": 24,
        "num_layers": 2,
        "num_heads": 3,
        "window_size": 3,
        "attention_types": [[["global", "local"], 1]],
    },
    "Roberta": STACK,
    "T5": {"d_model": 24, "d_kv": 5, "d_ff": 20, "num_layers": 2, "num_heads": 3},
    "XLNet": {"d_model": 24, "n_layer": 2, "n_head": 3, "d_inner": 20},
}
ENCODERS = ("Bert", "Roberta", "Albert", "DistilBert")


def names_of(*families: str) -> list[str]:
    """Names in `SPECS` of these families."""
    return [name for name, (family, _) in SPECS.items() if family in families]


@dataclass(frozen=True)
class Classifier:
    """One checkpoint in both libraries."""

    family: str
    folder: Path
    theirs: Any
    ours: Any

    @property
    def config(self) -> Any:
        return self.theirs.config

    @property
    def is_encoder(self) -> bool:
        return self.family in ENCODERS

    @property
    def type_count(self) -> int:
        """Token types that the tests give the model; 0 where it takes none."""
        if self.is_encoder:
            return getattr(self.config, "type_vocab_size", 0)
        return 0 if self.config.is_encoder_decoder else 4  # XLNet's; GPT reads them as tokens

    @property
    def forms(self) -> tuple[bool, ...]:
        """Forms of a text to test: plain, and with token types where the model takes them."""
        return (False, True) if self.type_count else (False,)

    @property
    def padding(self) -> int:
        """Token beside a text in a padded batch; to an encoder only the mask tells."""
        return 0 if self.is_encoder else self.config.pad_token_id

    @property
    def lengths(self) -> tuple[int, ...]:
        """Eight lengths in tokens, the longest possible among them where there is one."""
        limit = 130
        if self.is_encoder:
            limit = self.ours.base.positions.limit
        elif self.family == "Bart":
            limit = self.config.max_position_embeddings
        return (9, 1, 33, 2, 17, min(130, limit), 16, 5)

    def text(self, count: int, seed: int = 0) -> Tensor:
        """Tokens [1, count], different for every count: no padding, and an end token last or nowhere."""
        draw = torch.Generator().manual_seed(1000 * seed + count)
        tokens = torch.randint(8, self.config.vocab_size, (1, count), generator=draw)
        if self.config.is_encoder_decoder:
            tokens[0, -1] = self.config.eos_token_id
        return tokens

    def types(self, count: int, typed: bool = True) -> dict[str, Tensor]:
        """Types [1, count] of two texts, a separator and a class token, by their argument's name."""
        if not typed or not self.type_count:
            return {}
        types = torch.zeros(1, count, dtype=torch.int64)
        types[0, count // 2 :] = 1
        types[0, count - count // 4 :] = 2
        types[0, -1] = 3
        return {"token_type_ids": types.clamp(max=self.type_count - 1)}

    def features(self, count: int, typed: bool = True) -> Tensor:
        """One text as `predict` takes it: [count, 1], or [count, 2] with token types."""
        return torch.cat([self.text(count), *self.types(count, typed).values()]).T


def write_classifier(name: str, kind: str, folder: Path, **fields: Any) -> Any:
    """Write transformers' model of one of `SPECS`, of `kind` and with other fields; returns it as loaded."""
    family, given = SPECS[name]
    config = getattr(transformers, f"{family}Config")(**{**given, **fields})
    torch.manual_seed(sum(map(ord, name)))
    model = getattr(transformers, f"{family}{kind}")(config)
    draw_weights(model)
    model.save_pretrained(folder)
    return type(model).from_pretrained(folder, config=config, attn_implementation="eager").eval()


def make_classifier(name: str, folder: Path, **fields: Any) -> Classifier:
    """Write the classifier of one of `SPECS` and load it in both libraries."""
    theirs = write_classifier(name, "ForSequenceClassification", folder, **fields)
    ours = tritone.AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(ours).__name__ == type(theirs).__name__
    return Classifier(SPECS[name][0], folder, theirs, ours)
