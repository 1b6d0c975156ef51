"""UniSpeech-SAT (arXiv 2110.05752): wav2vec 2.0's architecture, pretrained to discriminate speakers too."""

from ..family import Family

FAMILY = Family(
    "unispeech-sat",
    "config.UniSpeechSatConfig",
    speech_encoder="model.UniSpeechSatModel",
    ctc="model.UniSpeechSatForCTC",
    audio_classification="model.UniSpeechSatForSequenceClassification",
    feature_extractor="wav2vec2/feature_extractor.Wav2Vec2FeatureExtractor",
    tokenizer="wav2vec2/tokenizer.Wav2Vec2CTCTokenizer",
    processor="wav2vec2/processor.Wav2Vec2Processor",
)
