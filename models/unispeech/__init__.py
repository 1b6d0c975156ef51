"""UniSpeech (arXiv 2101.07597): wav2vec 2.0's architecture, pretrained on labeled and unlabeled speech."""

from ..family import Family

FAMILY = Family(
    "unispeech",
    "config.UniSpeechConfig",
    speech_encoder="model.UniSpeechModel",
    ctc="model.UniSpeechForCTC",
    audio_classification="model.UniSpeechForSequenceClassification",
    feature_extractor="wav2vec2/feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="wav2vec2/tokenizer.Wav2Vec2CTCTokenizer",
    processor="wav2vec2/processor.Wav2Vec2Processor",
)
