"""Processor of Speech2Text."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Speech2TextFeatureExtractor
from .tokenizer import Speech2TextTokenizer


class Speech2TextProcessor(SpeechProcessor):
    """Speech2Text's feature extractor and tokenizer in one, for features, labels and decoded text."""

    feature_extractor_class = Speech2TextFeatureExtractor
    tokenizer_class = Speech2TextTokenizer
