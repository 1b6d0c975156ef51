"""Whisper (arXiv 2212.04356): encoder-decoder model from 30 s of log-mel features to text, and classifier."""

from ..family import Family

FAMILY = Family(
    "whisper",
    "config.WhisperConfig",
    speech_seq2seq="model.WhisperForConditionalGeneration",
    audio_classification="audio_classification.WhisperForAudioClassification",
    feature_extractor="feature_extractor.WhisperFeatureExtractor",
    tokenizer="tokenizer.WhisperTokenizer",
    processor="processor.WhisperProcessor",
    exports=("model.WhisperModel", "model.WhisperForCausalLM"),
)
