"""The processor of wav2vec 2.0 and its relatives."""

from ..processors.processor import SpeechProcessor
from .feature_extractor import Wav2Vec2FeatureExtractor


class Wav2Vec2Processor(SpeechProcessor):
    """Feature extractor and tokenizer of wav2vec 2.0, HuBERT, UniSpeech, SEW and their kin.

    The tokenizer is what the repository names: for CTC a `Wav2Vec2CTCTokenizer`.
    """

    feature_extractor_class = Wav2Vec2FeatureExtractor
