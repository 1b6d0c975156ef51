"""Speech2Text (arXiv 2010.05171): encoder-decoder model from log-mel features to text."""

from ..family import Family

FAMILY = Family(
    "speech_to_text",
    "config.Speech2TextConfig",
    speech_seq2seq="model.Speech2TextForConditionalGeneration",
    speech_encoder="speech_to_text/encoder.Speech2TextEncoder",  # not public, as in transformers
    feature_extractor="feature_extractor.Speech2TextFeatureExtractor",
    tokenizer="tokenizer.Speech2TextTokenizer",
    processor="processor.Speech2TextProcessor",
    exports=("model.Speech2TextModel",),
    other_names=("s2t",),
)
