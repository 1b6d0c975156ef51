"""RoBERTa (arXiv 1907.11692): BERT with a byte-level tokenizer."""

from ..family import Family

FAMILY = Family(
    "roberta",
    "config.RobertaConfig",
    text_decoder="model.RobertaForCausalLM",
    sequence_classification="model.RobertaForSequenceClassification",
    tokenizer="tokenizer.RobertaTokenizer",
    exports=("model.RobertaModel",),
)
