"""GPT-Neo (Black et al., 2021): GPT-2 with local attention in every other layer."""

from ..family import Family

FAMILY = Family(
    "gpt_neo",
    "config.GPTNeoConfig",
    sequence_classification="model.GPTNeoForSequenceClassification",
    tokenizer="gpt2/tokenizer.GPT2Tokenizer",
    exports=("model.GPTNeoModel",),
)
