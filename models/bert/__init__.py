"""BERT (arXiv 1810.04805): text encoder and decoder, sequence classifier, tokenizer."""

from ..family import Family

FAMILY = Family(
    "bert",
    "config.BertConfig",
    text_decoder="model.BertLMHeadModel",
    sequence_classification="model.BertForSequenceClassification",
    tokenizer="tokenizer.BertTokenizer",
    exports=("model.BertModel",),
)
