"""Write tensorflow_checkpoints.zip and flax_checkpoints.zip: tiny random models and their expected outputs.

transformers 5 writes neither, so they come from 4.57.6, in an environment of its own:

    python -m venv scratch
    scratch/bin/pip install "transformers==4.57.6" tensorflow-cpu tf-keras flax cramjam
    scratch/bin/python tests/conformance/golden/make_foreign_checkpoints.py

(with tensorflow 2.21.0, tf-keras 2.21.0, flax 0.12.8, jax 0.10.2, h5py 3.14.0, cramjam 2.11.0.) Each archive
has a folder a checkpoint, with config.json, the weights in the framework's own format, and
expected.safetensors: `inputs.*` what the model was called with, `outputs.*` what it gave.

TensorFlow's own writer neither compresses an index nor can be told to, but its reader reads such ones; here
the table is written again with compressed blocks, and TensorFlow reads it before it goes into the archive.
"""

import os

os.environ |= {"TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""}

import struct
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import cramjam
import flax
import jax
import numpy as np
import tensorflow as tf
import transformers
from safetensors.numpy import save_file

HERE = Path(__file__).parent
TEXT = {"vocab_size": 13, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXT |= {"intermediate_size": 5, "max_position_embeddings": 12, "num_labels": 3, "pad_token_id": 0}
ROBERTA = TEXT | {"type_vocab_size": 1, "pad_token_id": 1}
ALBERT = TEXT | {"embedding_size": 4}
DISTILBERT = {"vocab_size": 13, "dim": 6, "n_layers": 2, "n_heads": 2, "hidden_dim": 5, "num_labels": 3}
DISTILBERT |= {"max_position_embeddings": 12, "pad_token_id": 0}
GPT2 = {"vocab_size": 13, "n_positions": 12, "n_embd": 6, "n_layer": 2, "n_head": 2, "num_labels": 3}
GPT2 |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GPT_NEO = {"vocab_size": 13, "max_position_embeddings": 12, "hidden_size": 6, "num_layers": 2, "num_heads": 2}
GPT_NEO |= {"attention_types": [[["global", "local"], 1]], "window_size": 3, "intermediate_size": 5}
GPT_NEO |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
BART = {"vocab_size": 13, "d_model": 6, "encoder_layers": 1, "decoder_layers": 2, "num_labels": 3}
BART |= {
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 3,
    "encoder_ffn_dim": 5,
    "decoder_ffn_dim": 7,
}
BART |= {"max_position_embeddings": 12, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
BART |= {"decoder_start_token_id": 2, "forced_eos_token_id": 2}
T5 = {
    "vocab_size": 13,
    "d_model": 6,
    "d_kv": 4,
    "d_ff": 5,
    "num_layers": 2,
    "num_heads": 2,
    "pad_token_id": 0,
}
T5 |= {"relative_attention_num_buckets": 6, "relative_attention_max_distance": 8, "num_labels": 3}
T5 |= {"eos_token_id": 1, "decoder_start_token_id": 0}
XLNET = {"vocab_size": 13, "d_model": 6, "n_layer": 2, "n_head": 2, "d_inner": 5, "num_labels": 3}
XLNET |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
WAV2VEC2 = {"vocab_size": 11, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2}
WAV2VEC2 |= {"intermediate_size": 5, "conv_dim": [4, 4], "conv_stride": [3, 2], "conv_kernel": [5, 3]}
WAV2VEC2 |= {"num_feat_extract_layers": 2, "num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
WAV2VEC2 |= {"num_labels": 3, "classifier_proj_size": 4, "pad_token_id": 0}
STABLE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SPEECH = {"vocab_size": 11, "d_model": 6, "encoder_layers": 1, "decoder_layers": 1}
SPEECH |= {"encoder_attention_heads": 3, "decoder_attention_heads": 2, "encoder_ffn_dim": 5}
SPEECH |= {"decoder_ffn_dim": 7, "num_conv_layers": 2, "conv_kernel_sizes": [3, 5], "conv_channels": 4}
SPEECH |= {"input_feat_per_channel": 4, "max_source_positions": 32, "max_target_positions": 16}
WHISPER = {"vocab_size": 13, "d_model": 6, "encoder_layers": 1, "decoder_layers": 2, "num_mel_bins": 4}
WHISPER |= {"encoder_attention_heads": 3, "decoder_attention_heads": 2, "encoder_ffn_dim": 5}
WHISPER |= {"decoder_ffn_dim": 7, "max_source_positions": 10, "max_target_positions": 16, "num_labels": 3}
WHISPER |= {"pad_token_id": 1, "bos_token_id": 1, "eos_token_id": 1, "decoder_start_token_id": 2}
WHISPER |= {"suppress_tokens": None, "begin_suppress_tokens": None, "classifier_proj_size": 4}
DECODER = {"is_decoder": True}
CROSS = DECODER | {"add_cross_attention": True}

DRAW = np.random.default_rng(7)
IDS = np.array([[3, 7, 4, 9, 5, 8, 6], [4, 6, 11, 12, 2, 10, 3]], dtype=np.int32)
TOKENS = {"input_ids": IDS, "attention_mask": np.ones_like(IDS)}
PADDED = {"input_ids": IDS.copy(), "attention_mask": np.ones_like(IDS)}
PADDED["input_ids"][1, 5:] = 0
PADDED["attention_mask"][1, 5:] = 0
END = {"input_ids": IDS.copy(), "attention_mask": np.ones_like(IDS)}
END["input_ids"][:, -1] = 2  # as BART wants: its end in every row, as often
END["input_ids"][1, 4] = 3
BOTH = TOKENS | {"decoder_input_ids": np.array([[2, 7, 4, 9], [2, 5, 3, 11]], dtype=np.int32)}
WAVE = {"input_values": DRAW.standard_normal((1, 97)).astype(np.float32)}
FRAMES = {"input_features": DRAW.standard_normal((1, 21, 4)).astype(np.float32)}
FRAMES |= {"decoder_input_ids": np.array([[2, 7, 4, 9, 3]], dtype=np.int32)}
MELS = {"input_features": np.sin(np.arange(80, dtype=np.float32) ** 1.5).reshape(1, 4, 20)}  # nothing drawn

# Folder: the class without its "TF" or "Flax", the configuration's fields, the inputs.
TENSORFLOW: dict[str, tuple[str, dict[str, Any], dict[str, np.ndarray]]] = {
    "bert": ("BertForSequenceClassification", TEXT, PADDED),
    "bert_decoder": ("BertLMHeadModel", TEXT | CROSS, TOKENS),
    "roberta": ("RobertaForSequenceClassification", ROBERTA, TOKENS),
    "roberta_decoder": ("RobertaForCausalLM", ROBERTA | DECODER, TOKENS),
    "albert": ("AlbertForSequenceClassification", ALBERT, PADDED),
    "distilbert": ("DistilBertForSequenceClassification", DISTILBERT, PADDED),
    "gpt2": ("GPT2ForSequenceClassification", GPT2, TOKENS),
    "gpt2_decoder": ("GPT2LMHeadModel", GPT2, TOKENS),
    "bart": ("BartForSequenceClassification", BART, END),
    "mbart": ("MBartForConditionalGeneration", BART, BOTH),
    "t5": ("T5ForConditionalGeneration", T5, BOTH),
    "xlnet": ("XLNetForSequenceClassification", XLNET, TOKENS),
    "wav2vec2": ("Wav2Vec2ForSequenceClassification", WAV2VEC2, WAVE),
    "wav2vec2_ctc": ("Wav2Vec2ForCTC", WAV2VEC2 | STABLE, WAVE),
    "hubert": ("HubertForCTC", WAV2VEC2, WAVE),
    "speech_to_text": ("Speech2TextForConditionalGeneration", SPEECH, FRAMES),
    "whisper": ("WhisperForConditionalGeneration", WHISPER, MELS | {"decoder_input_ids": IDS[:1]}),
}
FLAX: dict[str, tuple[str, dict[str, Any], dict[str, np.ndarray]]] = {
    "bert": ("BertForSequenceClassification", TEXT, PADDED),
    "bert_decoder": ("BertForCausalLM", TEXT | DECODER, TOKENS),
    "roberta": ("RobertaForSequenceClassification", ROBERTA, TOKENS),
    "roberta_decoder": ("RobertaForCausalLM", ROBERTA | DECODER, TOKENS),
    "albert": ("AlbertForSequenceClassification", ALBERT, PADDED),
    "distilbert": ("DistilBertForSequenceClassification", DISTILBERT, PADDED),
    "gpt2": ("GPT2LMHeadModel", GPT2, TOKENS),
    "gpt_neo": ("GPTNeoForCausalLM", GPT_NEO, TOKENS),
    "bart": ("BartForSequenceClassification", BART, END),
    "bart_decoder": ("BartForCausalLM", BART, TOKENS),
    "mbart": ("MBartForConditionalGeneration", BART, BOTH),
    "t5": ("T5ForConditionalGeneration", T5, BOTH),
    # Flax has these convolutions only for models that are normed by layer.
    "wav2vec2": ("Wav2Vec2Model", WAV2VEC2 | STABLE, WAVE),
    "wav2vec2_ctc": ("Wav2Vec2ForCTC", WAV2VEC2 | STABLE, WAVE),
    "speech_encoder_decoder": ("SpeechEncoderDecoderModel", {}, WAVE | {"decoder_input_ids": IDS[:1]}),
    "whisper": ("WhisperForConditionalGeneration", WHISPER, MELS | {"decoder_input_ids": IDS[:1]}),
    "whisper_classifier": ("WhisperForAudioClassification", WHISPER, MELS),
}
# Written as an index too: the prefix, and in how many shards.
INDEXED = {"bert": ("model.ckpt", 3), "speech_to_text": ("speech_model_checkpoint.ckpt", 1)}
INDEXED |= {"wav2vec2": ("wav2vec2.ckpt", 1)}
COMPRESSED = ORIGINAL = "bert"
SAFETENSORS = "distilbert"  # in the framework's names and layout
CHUNKED = "bert_decoder"  # as Flax does with arrays of over a gigabyte
SHARDED = {"tensorflow": "gpt2", "flax": "bert"}  # in the framework's format, and several files


def main(frameworks: list[str]) -> None:
    """Write the archives beside this script."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for framework in frameworks:
            made, cases = (make_tensorflow, TENSORFLOW) if framework == "tensorflow" else (make_flax, FLAX)
            for folder, case in cases.items():
                print(framework, folder, flush=True)
                made(root / framework / folder, folder, *case)
            target = HERE / f"{framework}_checkpoints.zip"
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
                for path in sorted((root / framework).rglob("*")):
                    if path.is_file():
                        stamp = zipfile.ZipInfo(
                            str(path.relative_to(root / framework)), (2026, 1, 1, 0, 0, 0)
                        )
                        archive.writestr(stamp, path.read_bytes(), zipfile.ZIP_DEFLATED)


def fresh(shape: Any, name: str) -> np.ndarray:
    """A random weight, so that no other one passes for it."""
    value = 0.6 * DRAW.standard_normal(tuple(shape))
    if name.endswith(("gamma", "scale", "weight_g")) or ("norm" in name.lower() and name.endswith("weight")):
        value = 1 + 0.5 * value
    return value.astype(np.float32)


def save_expected(folder: Path, inputs: dict[str, np.ndarray], outputs: Any) -> None:
    """Write a model's inputs and outputs."""
    given = {name: np.asarray(outputs[name]) for name in ("logits", "last_hidden_state") if name in outputs}
    tensors = {f"inputs.{name}": value for name, value in inputs.items()}
    tensors |= {f"outputs.{name}": value.astype(np.float32) for name, value in given.items()}
    save_file(tensors, folder / "expected.safetensors")


# TensorFlow.


def make_tensorflow(
    folder: Path, name: str, class_name: str, fields: dict[str, Any], inputs: dict[str, np.ndarray]
) -> None:
    """Write a checkpoint as tf_model.h5 and, for some, as an index with shards."""
    cls = getattr(transformers, f"TF{class_name}")
    model = cls(cls.config_class(**fields))
    model(inputs)  # the first call creates its variables
    for variable in model.trainable_weights:
        variable.assign(fresh(variable.shape, variable.name.removesuffix(":0")))
    model.save_pretrained(folder, safe_serialization=False)
    if name == SHARDED["tensorflow"]:
        model.save_pretrained(folder / "sharded", safe_serialization=False, max_shard_size=1200)
        (folder / "sharded" / "config.json").unlink()
    if name in INDEXED:
        prefix, shards = INDEXED[name]
        variables = {variable.name.removesuffix(":0"): variable for variable in model.weights}
        save_index(folder / "index" / prefix, variables, shards)
        if name == COMPRESSED:
            table = folder / "index" / f"{prefix}.index"
            compress_table(table, folder / "index" / f"compressed.{prefix}.index")
    if name == ORIGINAL:
        save_index(folder / "original" / "bert_model.ckpt", original_bert(model), 1)
    if name == SAFETENSORS:
        model.save_pretrained(folder / "safetensors", safe_serialization=True)
    save_expected(folder, inputs, model(inputs, training=False))


def original_bert(model: Any) -> dict[str, tf.Variable]:
    """The variables under the names of github.com/google-research/bert, with its optimizer's."""
    variables = {"global_step": tf.Variable(7, dtype=tf.int64)}
    for variable in model.weights:
        name = variable.name.removesuffix(":0").partition("/")[2].replace("_._", "_")
        value = variable.numpy()
        if name.startswith("classifier/"):
            name = {"kernel": "output_weights", "bias": "output_bias"}[name.rpartition("/")[2]]
            value = value.T
        if "_embeddings/" in name:
            name = name.rpartition("/")[0]
        for slot in ("", "/adam_m", "/adam_v"):
            variables[name + slot] = tf.Variable(0 * value if slot else value)
    return variables


def save_index(prefix: Path, variables: dict[str, tf.Variable], shards: int) -> None:
    """Write an index as tf.compat.v1.train.Saver: a table of names, and the tensors in one or more files."""
    prefix.parent.mkdir()
    names = sorted(variables)
    parts = []
    for number in range(shards):
        part = {name: variables[name] for name in names[number::shards]}
        parts.append(tf.compat.v1.train.Saver(part).save(None, f"{prefix}.part{number}"))
    tf.raw_ops.MergeV2Checkpoints(checkpoint_prefixes=parts, destination_prefix=str(prefix))
    (prefix.parent / "checkpoint").unlink()
    assert len(list(prefix.parent.iterdir())) == shards + 1
    assert {name for name, _ in tf.train.list_variables(str(prefix))} == set(variables)


def compress_table(source: Path, target: Path) -> None:
    """Write a table again in small compressed blocks (LevelDB's table_format.txt)."""
    data = source.read_bytes()
    entries = [entry for block in table_blocks(data) for entry in block]
    out, index = b"", []
    for start in range(0, len(entries), 9):
        block = build_block(entries[start : start + 9], every=4)
        squeezed = bytes(cramjam.snappy.compress_raw(block))
        index.append((entries[min(start + 9, len(entries)) - 1][0], varint(len(out)) + varint(len(squeezed))))
        out += sealed(squeezed, b"\1")
    places = []
    for block in (build_block([], every=1), build_block(index, every=1)):
        places.append(varint(len(out)) + varint(len(block)))
        out += sealed(block, b"\0")
    footer = b"".join(places)
    target.write_bytes(out + footer.ljust(40, b"\0") + data[-8:])
    prefix = str(target).removesuffix(".index")
    for shard in target.parent.glob("model.ckpt.data-*"):
        (target.parent / f"compressed.{shard.name}").symlink_to(shard)
    for name, _ in tf.train.list_variables(prefix):  # TensorFlow reads what was written
        same = tf.train.load_variable(str(source).removesuffix(".index"), name)
        assert np.array_equal(tf.train.load_variable(prefix, name), same), name
    for shard in target.parent.glob("compressed.*.data-*"):
        shard.unlink()


def table_blocks(data: bytes) -> list[list[tuple[bytes, bytes]]]:
    """The entries of each block of an uncompressed table."""
    at, (_, _) = 0, (0, 0)
    numbers = []
    footer = data[-48:]
    for _ in range(4):
        number, at = read_varint(footer, at)
        numbers.append(number)
    blocks = []
    for _, place in read_block(data, numbers[2], numbers[3]):
        offset, at = read_varint(place, 0)
        size, _ = read_varint(place, at)
        blocks.append(read_block(data, offset, size))
    return blocks


def read_block(data: bytes, offset: int, size: int) -> list[tuple[bytes, bytes]]:
    """The entries of one block."""
    assert data[offset + size] == 0
    block = data[offset : offset + size]
    end = size - 4 - 4 * struct.unpack("<I", block[-4:])[0]
    entries, at, key = [], 0, b""
    while at < end:
        shared, at = read_varint(block, at)
        own, at = read_varint(block, at)
        length, at = read_varint(block, at)
        key = key[:shared] + block[at : at + own]
        entries.append((key, block[at + own : at + own + length]))
        at += own + length
    return entries


def build_block(entries: list[tuple[bytes, bytes]], every: int) -> bytes:
    """A block with prefix-compressed keys, whole at every `every`-th entry."""
    out, restarts, last = b"", [], b""
    for number, (key, value) in enumerate(entries):
        shared = 0
        if number % every:
            shared = len(os.path.commonprefix([last, key]))  # noqa: RUF071  # of bytes, no paths
        else:
            restarts.append(len(out))
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    restarts = restarts or [0]
    return out + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def sealed(block: bytes, kind: bytes) -> bytes:
    """A block with its kind and its masked CRC-32C."""
    crc = 0xFFFFFFFF
    for byte in block + kind:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF
    return block + kind + struct.pack("<I", masked)


def varint(number: int) -> bytes:
    """A number in base 128, LevelDB's varint."""
    out = b""
    while number > 127:
        out += bytes([number & 127 | 128])
        number >>= 7
    return out + bytes([number])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint's number, and the offset behind it."""
    number = shift = 0
    while True:
        number |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 128:
            return number, at


# Flax.


def clip(values: Any, a_min: Any = None, a_max: Any = None, **bounds: Any) -> Any:
    """jax.numpy.clip with the old argument names, which transformers uses."""
    return new_clip(values, bounds.get("min", a_min), bounds.get("max", a_max))


new_clip, jax.numpy.clip = jax.numpy.clip, clip


def make_flax(
    folder: Path, name: str, class_name: str, fields: dict[str, Any], inputs: dict[str, np.ndarray]
) -> None:
    """Write a checkpoint as flax_model.msgpack."""
    cls = getattr(transformers, f"Flax{class_name}")
    if name == "speech_encoder_decoder":
        encoder = transformers.Wav2Vec2Config(**WAV2VEC2, **STABLE)
        decoder = transformers.BertConfig(**TEXT | CROSS | {"hidden_size": 4})
        config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
        config.decoder_start_token_id, config.pad_token_id = 1, 0
        model = cls(config, input_shape=((1, 97), (1, 7)))
    elif "wav2vec2" in name:
        model = cls(cls.config_class(**fields), input_shape=(1, 97))
    else:
        model = cls(cls.config_class(**fields))

    def drawn(path: Any, value: Any) -> Any:
        return fresh(value.shape, "/".join(str(part.key) for part in path))

    model.params = jax.tree_util.tree_map_with_path(drawn, model.params)
    flax.serialization.MAX_CHUNK_SIZE = 64 if name == CHUNKED else 2**30
    model.save_pretrained(folder)
    if name == SHARDED["flax"]:
        model.save_pretrained(folder / "sharded", max_shard_size=1200)
        (folder / "sharded" / "config.json").unlink()
    if name == SAFETENSORS:
        model.save_pretrained(folder / "safetensors", safe_serialization=True)
    called = dict(inputs)
    if name == "speech_encoder_decoder":
        called["inputs"] = called.pop("input_values")
    save_expected(folder, inputs, model(**called))


if __name__ == "__main__":
    main(sys.argv[1:] or ["tensorflow", "flax"])
