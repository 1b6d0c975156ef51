"""MBart (arXiv 2001.08210): multilingual BART with pre-norm layers; its decoder and tokenizers."""

from ..family import Family

FAMILY = Family(
    "mbart",
    "config.MBartConfig",
    text_decoder="model.MBartForCausalLM",
    tokenizer="tokenizer.MBartTokenizer",
    other_tokenizers=("tokenizer.MBart50Tokenizer",),
)
