"""Processor of Speech2Text2."""

from ..processors.processor import SpeechProcessor
from ..wav2vec2.feature_extractor import Wav2Vec2FeatureExtractor
from .tokenizer import Speech2Text2Tokenizer


class Speech2Text2Processor(SpeechProcessor):
    """Feature extractor of wav2vec 2.0 and tokenizer of Speech2Text2 in one."""

    feature_extractor_class = Wav2Vec2FeatureExtractor
    tokenizer_class = Speech2Text2Tokenizer
