"""GPT-2 (Radford et al., 2019): causal language model, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "gpt2",
    "config.GPT2Config",
    text_decoder="model.GPT2LMHeadModel",
    sequence_classification="classification.GPT2ForSequenceClassification",
    tokenizer="tokenizer.GPT2Tokenizer",
    exports=("model.GPT2Model",),
)
