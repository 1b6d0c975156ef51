"""RoBERTa (arXiv 1907.11692): BERT with byte-level tokens."""

from ..family import Family

FAMILY = Family(
    "roberta",
    "config.RobertaConfig",
    text_decoder="model.RobertaForCausalLM",
    sequence_classification="model.RobertaForSequenceClassification",
    tokenizer="tokenizer.RobertaTokenizer",
    exports=("model.RobertaModel",),
)
