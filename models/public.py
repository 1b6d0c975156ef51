"""The public names of this package, and where each lies; no torch here, they are imported when first used."""

from typing import TYPE_CHECKING

HOMES = {
    "AlbertConfig": "albert_config",
    "AlbertForSequenceClassification": "albert",
    "AlbertModel": "albert",
    "AlbertTokenizer": "albert_tokenization",
    "AutoConfig": "auto",
    "AutoFeatureExtractor": "auto",
    "AutoModelForAudioClassification": "auto",
    "AutoModelForCTC": "auto",
    "AutoModelForSequenceClassification": "auto",
    "AutoModelForSpeechSeq2Seq": "auto",
    "AutoProcessor": "auto",
    "AutoTokenizer": "auto",
    "BartConfig": "bart_config",
    "BartForCausalLM": "bart",
    "BartForSequenceClassification": "bart",
    "BartModel": "bart",
    "BartTokenizer": "roberta_tokenization",
    "BertConfig": "bert_config",
    "BertForSequenceClassification": "bert",
    "BertLMHeadModel": "bert",
    "BertModel": "bert",
    "BertTokenizer": "bert_tokenization",
    "DistilBertConfig": "distilbert_config",
    "DistilBertForSequenceClassification": "distilbert",
    "DistilBertModel": "distilbert",
    "DistilBertTokenizer": "distilbert_tokenization",
    "GPT2Config": "gpt2_config",
    "GPT2ForSequenceClassification": "gpt2_classification",
    "GPT2LMHeadModel": "gpt2",
    "GPT2Model": "gpt2",
    "GPT2Tokenizer": "gpt2_tokenization",
    "GPTNeoConfig": "gpt_neo_config",
    "GPTNeoForSequenceClassification": "gpt_neo",
    "GPTNeoModel": "gpt_neo",
    "GenerationConfig": "generation_config",
    "HubertConfig": "hubert",
    "HubertForCTC": "ctc",
    "HubertForSequenceClassification": "audio_classification",
    "HubertModel": "hubert",
    "MBart50Tokenizer": "mbart_tokenization",
    "MBartConfig": "mbart_config",
    "MBartForCausalLM": "mbart",
    "MBartTokenizer": "mbart_tokenization",
    "PreTrainedTokenizerFast": "tokenization_file",
    "RobertaConfig": "roberta_config",
    "RobertaForCausalLM": "roberta",
    "RobertaForSequenceClassification": "roberta",
    "RobertaModel": "roberta",
    "RobertaTokenizer": "roberta_tokenization",
    "SEWConfig": "sew",
    "SEWDConfig": "sew_d",
    "SEWDForCTC": "ctc",
    "SEWDForSequenceClassification": "audio_classification",
    "SEWDModel": "sew_d",
    "SEWForCTC": "ctc",
    "SEWForSequenceClassification": "audio_classification",
    "SEWModel": "sew",
    "Speech2Text2Config": "speech_to_text_2_config",
    "Speech2Text2ForCausalLM": "speech_to_text_2",
    "Speech2Text2Processor": "wav2vec2_processing",
    "Speech2Text2Tokenizer": "speech_to_text_2_tokenization",
    "Speech2TextConfig": "speech_to_text",
    "Speech2TextFeatureExtractor": "speech_to_text_processing",
    "Speech2TextForConditionalGeneration": "speech_to_text",
    "Speech2TextModel": "speech_to_text",
    "Speech2TextProcessor": "speech_to_text_processing",
    "Speech2TextTokenizer": "speech_to_text_tokenization",
    "SpeechEncoderDecoderConfig": "speech_encoder_decoder_config",
    "SpeechEncoderDecoderModel": "speech_encoder_decoder",
    "SpeechProcessor": "processing",
    "T5Config": "t5_config",
    "T5ForSequenceClassification": "t5",
    "T5Model": "t5",
    "T5Tokenizer": "t5_tokenization",
    "UniSpeechConfig": "unispeech",
    "UniSpeechForCTC": "ctc",
    "UniSpeechForSequenceClassification": "audio_classification",
    "UniSpeechModel": "unispeech",
    "UniSpeechSatConfig": "unispeech_sat",
    "UniSpeechSatForCTC": "ctc",
    "UniSpeechSatForSequenceClassification": "audio_classification",
    "UniSpeechSatModel": "unispeech_sat",
    "Wav2Vec2CTCTokenizer": "wav2vec2_tokenization",
    "Wav2Vec2Config": "wav2vec2_config",
    "Wav2Vec2FeatureExtractor": "wav2vec2_processing",
    "Wav2Vec2ForCTC": "ctc",
    "Wav2Vec2ForSequenceClassification": "audio_classification",
    "Wav2Vec2Model": "wav2vec2",
    "Wav2Vec2Processor": "wav2vec2_processing",
    "XLNetConfig": "xlnet_config",
    "XLNetForSequenceClassification": "xlnet",
    "XLNetModel": "xlnet",
    "XLNetTokenizer": "xlnet_tokenization",
}

if TYPE_CHECKING:
    from .albert import AlbertForSequenceClassification as AlbertForSequenceClassification
    from .albert import AlbertModel as AlbertModel
    from .albert_config import AlbertConfig as AlbertConfig
    from .albert_tokenization import AlbertTokenizer as AlbertTokenizer
    from .audio_classification import HubertForSequenceClassification as HubertForSequenceClassification
    from .audio_classification import SEWDForSequenceClassification as SEWDForSequenceClassification
    from .audio_classification import SEWForSequenceClassification as SEWForSequenceClassification
    from .audio_classification import UniSpeechForSequenceClassification as UniSpeechForSequenceClassification
    from .audio_classification import (
        UniSpeechSatForSequenceClassification as UniSpeechSatForSequenceClassification,
    )
    from .audio_classification import Wav2Vec2ForSequenceClassification as Wav2Vec2ForSequenceClassification
    from .auto import AutoConfig as AutoConfig
    from .auto import AutoFeatureExtractor as AutoFeatureExtractor
    from .auto import AutoModelForAudioClassification as AutoModelForAudioClassification
    from .auto import AutoModelForCTC as AutoModelForCTC
    from .auto import AutoModelForSequenceClassification as AutoModelForSequenceClassification
    from .auto import AutoModelForSpeechSeq2Seq as AutoModelForSpeechSeq2Seq
    from .auto import AutoProcessor as AutoProcessor
    from .auto import AutoTokenizer as AutoTokenizer
    from .bart import BartForCausalLM as BartForCausalLM
    from .bart import BartForSequenceClassification as BartForSequenceClassification
    from .bart import BartModel as BartModel
    from .bart_config import BartConfig as BartConfig
    from .bert import BertForSequenceClassification as BertForSequenceClassification
    from .bert import BertLMHeadModel as BertLMHeadModel
    from .bert import BertModel as BertModel
    from .bert_config import BertConfig as BertConfig
    from .bert_tokenization import BertTokenizer as BertTokenizer
    from .ctc import HubertForCTC as HubertForCTC
    from .ctc import SEWDForCTC as SEWDForCTC
    from .ctc import SEWForCTC as SEWForCTC
    from .ctc import UniSpeechForCTC as UniSpeechForCTC
    from .ctc import UniSpeechSatForCTC as UniSpeechSatForCTC
    from .ctc import Wav2Vec2ForCTC as Wav2Vec2ForCTC
    from .distilbert import DistilBertForSequenceClassification as DistilBertForSequenceClassification
    from .distilbert import DistilBertModel as DistilBertModel
    from .distilbert_config import DistilBertConfig as DistilBertConfig
    from .distilbert_tokenization import DistilBertTokenizer as DistilBertTokenizer
    from .generation_config import GenerationConfig as GenerationConfig
    from .gpt2 import GPT2LMHeadModel as GPT2LMHeadModel
    from .gpt2 import GPT2Model as GPT2Model
    from .gpt2_classification import GPT2ForSequenceClassification as GPT2ForSequenceClassification
    from .gpt2_config import GPT2Config as GPT2Config
    from .gpt2_tokenization import GPT2Tokenizer as GPT2Tokenizer
    from .gpt_neo import GPTNeoForSequenceClassification as GPTNeoForSequenceClassification
    from .gpt_neo import GPTNeoModel as GPTNeoModel
    from .gpt_neo_config import GPTNeoConfig as GPTNeoConfig
    from .hubert import HubertConfig as HubertConfig
    from .hubert import HubertModel as HubertModel
    from .mbart import MBartForCausalLM as MBartForCausalLM
    from .mbart_config import MBartConfig as MBartConfig
    from .mbart_tokenization import MBart50Tokenizer as MBart50Tokenizer
    from .mbart_tokenization import MBartTokenizer as MBartTokenizer
    from .processing import SpeechProcessor as SpeechProcessor
    from .roberta import RobertaForCausalLM as RobertaForCausalLM
    from .roberta import RobertaForSequenceClassification as RobertaForSequenceClassification
    from .roberta import RobertaModel as RobertaModel
    from .roberta_config import RobertaConfig as RobertaConfig
    from .roberta_tokenization import BartTokenizer as BartTokenizer
    from .roberta_tokenization import RobertaTokenizer as RobertaTokenizer
    from .sew import SEWConfig as SEWConfig
    from .sew import SEWModel as SEWModel
    from .sew_d import SEWDConfig as SEWDConfig
    from .sew_d import SEWDModel as SEWDModel
    from .speech_encoder_decoder import SpeechEncoderDecoderModel as SpeechEncoderDecoderModel
    from .speech_encoder_decoder_config import SpeechEncoderDecoderConfig as SpeechEncoderDecoderConfig
    from .speech_to_text import Speech2TextConfig as Speech2TextConfig
    from .speech_to_text import Speech2TextForConditionalGeneration as Speech2TextForConditionalGeneration
    from .speech_to_text import Speech2TextModel as Speech2TextModel
    from .speech_to_text_2 import Speech2Text2ForCausalLM as Speech2Text2ForCausalLM
    from .speech_to_text_2_config import Speech2Text2Config as Speech2Text2Config
    from .speech_to_text_2_tokenization import Speech2Text2Tokenizer as Speech2Text2Tokenizer
    from .speech_to_text_processing import Speech2TextFeatureExtractor as Speech2TextFeatureExtractor
    from .speech_to_text_processing import Speech2TextProcessor as Speech2TextProcessor
    from .speech_to_text_tokenization import Speech2TextTokenizer as Speech2TextTokenizer
    from .t5 import T5ForSequenceClassification as T5ForSequenceClassification
    from .t5 import T5Model as T5Model
    from .t5_config import T5Config as T5Config
    from .t5_tokenization import T5Tokenizer as T5Tokenizer
    from .tokenization_file import PreTrainedTokenizerFast as PreTrainedTokenizerFast
    from .unispeech import UniSpeechConfig as UniSpeechConfig
    from .unispeech import UniSpeechModel as UniSpeechModel
    from .unispeech_sat import UniSpeechSatConfig as UniSpeechSatConfig
    from .unispeech_sat import UniSpeechSatModel as UniSpeechSatModel
    from .wav2vec2 import Wav2Vec2Model as Wav2Vec2Model
    from .wav2vec2_config import Wav2Vec2Config as Wav2Vec2Config
    from .wav2vec2_processing import Speech2Text2Processor as Speech2Text2Processor
    from .wav2vec2_processing import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from .wav2vec2_processing import Wav2Vec2Processor as Wav2Vec2Processor
    from .wav2vec2_tokenization import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from .xlnet import XLNetForSequenceClassification as XLNetForSequenceClassification
    from .xlnet import XLNetModel as XLNetModel
    from .xlnet_config import XLNetConfig as XLNetConfig
    from .xlnet_tokenization import XLNetTokenizer as XLNetTokenizer
