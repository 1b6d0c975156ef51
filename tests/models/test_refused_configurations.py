"""Configurations that make no model are refused by the name and value of the field, in every family."""

from functools import partial
from typing import Any

import pytest
from waveform_encoders import tiny_encoder

import tritone

WIDTH = {"d_model": 24, "decoder_attention_heads": 2}
BART: list[tuple[dict[str, Any], str]] = [
    ({"decoder_attention_heads": 5}, "decoder_attention_heads 5 must divide d_model 24"),
    ({"decoder_attention_heads": 0}, "decoder_attention_heads must be a whole number from 1 to .*, got 0"),
    ({"activation_function": "quick"}, "activation_function 'quick' is not supported; one of gelu"),
    ({"cross_attention_hidden_size": 48}, "cross_attention_hidden_size is 48, .* decoder of width 24"),
]
# By the first part of the names of a family's classes: fields, and a part of the message.
REFUSED: dict[str, list[tuple[dict[str, Any], str]]] = {
    "Albert": [
        ({"num_attention_heads": 5}, "num_attention_heads 5 must divide hidden_size 4096"),
        ({"hidden_act": "mish"}, "hidden_act 'mish' is not supported"),
        ({"num_hidden_groups": 0}, "num_hidden_groups must be a whole number from 1 to .*, got 0"),
        ({"inner_group_num": 0}, "inner_group_num must be a whole number from 1 to .*, got 0"),
        ({"position_embedding_type": "relative_key"}, "only 'absolute' is"),
    ],
    **{
        family: [
            ({"d_model": 24, "decoder_attention_heads": 2, **fields}, problem) for fields, problem in BART
        ]
        for family in ("Bart", "MBart", "Speech2Text2")
    },
    "Bert": [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({"hidden_act": "softsign"}, "hidden_act 'softsign'"),
        ({"num_attention_heads": 5}, "num_attention_heads 5"),
        ({"cross_attention_hidden_size": 32}, "cross_attention_hidden_size is 32"),
    ],
    "DistilBert": [
        ({"n_heads": 5}, "n_heads 5 must divide dim 768"),
        ({"n_heads": 0}, "n_heads must be a whole number from 1 to .*, got 0"),
        ({"activation": "mish"}, "activation 'mish' is not supported"),
    ],
    "GPT2": [
        ({"activation_function": "softsign"}, "activation_function 'softsign'"),
        ({"n_head": 5}, "n_head 5"),
        ({"cross_attention_hidden_size": 32}, "cross_attention_hidden_size is 32"),
    ],
    "GPTNeo": [
        ({"activation_function": "softsign"}, "activation_function 'softsign'"),
        ({"num_heads": 5}, "num_heads 5 must divide hidden_size 2048"),
        ({"num_layers": 4}, "are of 24 layers, and num_layers is 4"),
        ({"attention_types": [[["global", "sparse"], 12]]}, "has 'sparse'"),
        ({"window_size": 0}, "window_size must be a whole number from 1 to .*, got 0"),
    ],
    "Roberta": [({"pad_token_id": None}, "pad_token_id is None")],
    "SEW": [({"squeeze_factor": 0}, "squeeze_factor must be a whole number from 1 to .*, got 0")],
    "SEWD": [
        ({"pos_att_type": ("c2p", "p2p")}, "pos_att_type 'p2p' is not supported; use 'p2c' or 'c2p'"),
        ({"norm_rel_ebd": "batch_norm"}, "norm_rel_ebd 'batch_norm'"),
        ({"attention_head_size": 5}, "attention_head_size 5 is not supported"),
        ({"conv_kernel_size": 4}, "conv_kernel_size 4 would change the number of tokens"),
        ({"conv_kernel_size": 3, "conv_act": "snake"}, "conv_act 'snake' is not supported"),
        ({"hidden_act": "snake"}, "hidden_act 'snake' is not supported"),
        ({"position_buckets": 1}, "1 position buckets cannot be divided"),
        ({"position_buckets": 64}, "64 position buckets cannot be divided logarithmically up to 9"),
        ({"max_position_embeddings": 0}, "max_position_embeddings must be .* from 1 to .*, got 0"),
        ({"squeeze_factor": 0}, "squeeze_factor must be"),
    ],
    "Speech2Text": [
        ({"conv_kernel_sizes": [5]}, r"conv_kernel_sizes \[5\] must have one size for each of the 2"),
        ({"d_model": 30}, "encoder_attention_heads 4 must divide d_model 30"),
        ({"d_model": 36, "decoder_attention_heads": 5}, "decoder_attention_heads 5 must divide d_model 36"),
        ({"hidden_size": 30}, "encoder_attention_heads 4 must divide d_model 30"),
    ],
    "Whisper": [
        ({"encoder_attention_heads": 5}, "encoder_attention_heads 5 must divide d_model 384"),
        ({"decoder_attention_heads": 5}, "decoder_attention_heads 5 must divide d_model 384"),
        ({"activation_function": "mish"}, "activation_function 'mish' is not supported"),
        (
            {"d_model": 9, "encoder_attention_heads": 3, "decoder_attention_heads": 3},
            "d_model 9 must be even",
        ),
        ({"max_source_positions": 0}, "max_source_positions must be a whole number from 1 to .*, got 0"),
        ({"pad_token_id": 51865}, "pad_token_id is 51865, and vocab_size 51865"),
        ({"median_filter_width": 0}, "median_filter_width must be"),
    ],
    "T5": [
        ({"feed_forward_proj": "double-gelu"}, "'double-gelu'"),
        ({"feed_forward_proj": "gated-nothing"}, "dense_act_fn 'nothing' is not supported"),
        ({"relative_attention_num_buckets": 3}, "3 buckets up to distance 128 cannot be divided"),
        ({"relative_attention_max_distance": 16}, "32 buckets up to distance 16"),
        ({"num_heads": 0}, "num_heads must be a whole number from 1 to .*, got 0"),
        ({"d_kv": -3}, "d_kv must be a whole number from 1 to .*, got -3"),
    ],
    "Wav2Vec2": [
        ({"conv_dim": (6, 8, 9)}, "conv_dim .* conv_stride .* conv_kernel"),
        ({"conv_dim": (), "conv_stride": (), "conv_kernel": ()}, "one number for each convolution"),
        (
            {"conv_stride": (4, 0)},
            r"conv_stride must be a list, each item a .* from 1 to .*, got \(4, 0\)",
        ),
        ({"feat_extract_norm": "batch"}, "'batch' is not supported; use 'group' or 'layer'"),
        ({"num_attention_heads": 5}, "num_attention_heads 5 must divide hidden_size 12"),
        ({"num_conv_pos_embedding_groups": 8}, "num_conv_pos_embedding_groups 8 must divide"),
        ({"adapter_attn_dim": 16}, "adapter_attn_dim 16 is not supported"),
        ({"add_adapter": True, "adapter_kernel_size": 5}, "adapter_kernel_size 5 is not supported"),
        (
            {"add_adapter": True, "adapter_stride": 0},
            "adapter_stride must be .* from 1 .*, got 0",
        ),
        ({"feat_extract_activation": "snake"}, "feat_extract_activation 'snake' is not supported"),
        ({"hidden_act": "snake"}, "hidden_act 'snake' is not supported"),
    ],
    "XLNet": [
        ({"ff_activation": "softsign"}, "ff_activation 'softsign'"),
        ({"summary_activation": "softsign"}, "summary_activation 'softsign'"),
        ({"n_head": 5}, "n_head 5 must divide d_model 1024"),
        ({"d_head": 7}, "d_head is 7, and d_model 1024 / n_head 16 is 64"),
        ({"d_model": 33, "n_head": 3}, "d_model must be even, for as many sines as cosines; got 33"),
        ({"attn_type": "both"}, "attn_type 'both' is not supported; use 'bi' or 'uni'"),
        ({"summary_type": "attn"}, "summary_type 'attn' is not supported; use 'last', 'first', 'mean' or"),
    ],
}
CASES = [(family, *case) for family, cases in REFUSED.items() for case in cases]


@pytest.mark.parametrize(("family", "fields", "problem"), CASES, ids=str)
def test_a_configuration_that_makes_no_model_is_refused(
    family: str, fields: dict[str, Any], problem: str
) -> None:
    waveforms = family in ("SEW", "SEWD", "Wav2Vec2")
    make = partial(tiny_encoder, family) if waveforms else getattr(tritone, f"{family}Config")
    with pytest.raises(ValueError, match=problem):
        make(**fields)
