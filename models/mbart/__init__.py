"""MBart (arXiv 2001.08210): BART of many languages, normalized first."""

from ..family import Family

FAMILY = Family(
    "mbart",
    "config.MBartConfig",
    text_decoder="model.MBartForCausalLM",
    tokenizer="tokenizer.MBartTokenizer",
    other_tokenizers=("tokenizer.MBart50Tokenizer",),
)
