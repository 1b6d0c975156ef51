"""Speech encoders of the wav2vec 2.0 kind: transformers' outputs at batch 1, the same bits in any company."""

import copy
import shutil
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

import tritone

SMALL = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 37,
    "conv_dim": (7, 9, 11),
    "conv_stride": (5, 2, 3),
    "conv_kernel": (10, 3, 4),
    "num_conv_pos_embeddings": 6,
    "num_conv_pos_embedding_groups": 4,
    "mask_time_length": 3,
}
# Name: the family, and fields of its configuration that are not its defaults.
SPECS: dict[str, tuple[str, dict[str, Any]]] = {
    "wav2vec2-group": ("Wav2Vec2", {**SMALL}),
    "wav2vec2-layer-stable-adapter": (
        "Wav2Vec2",
        {
            **SMALL,
            "feat_extract_norm": "layer",
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "num_conv_pos_embeddings": 5,
            "num_conv_pos_embedding_groups": 1,
            "hidden_act": "gelu_new",
            "layer_norm_eps": 1e-3,
            "add_adapter": True,
            "num_adapter_layers": 2,
            "output_hidden_size": 14,
        },
    ),
    "wav2vec2-group-stable-bias-adapter": (
        "Wav2Vec2",
        {
            **SMALL,
            "conv_bias": True,
            "do_stable_layer_norm": True,
            "feat_extract_activation": "relu",
            "num_conv_pos_embedding_groups": 24,
            "conv_dim": (8, 24),
            "conv_stride": (7, 3),
            "conv_kernel": (7, 5),
            "add_adapter": True,
            "num_adapter_layers": 1,
            "adapter_stride": 3,
            "adapter_kernel_size": 2,
            "mask_time_prob": 0.0,
        },
    ),
    "hubert": ("Hubert", {**SMALL, "num_conv_pos_embeddings": 7}),
    "hubert-layer-stable": (
        "Hubert",
        {**SMALL, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    ),
    "hubert-batch-norm": (
        "Hubert",
        {**SMALL, "conv_pos_batch_norm": True, "feat_proj_layer_norm": False, "feat_proj_dropout": 0.2},
    ),
    "unispeech": ("UniSpeech", {**SMALL, "num_hidden_layers": 1, "num_conv_pos_embeddings": 1}),
    "unispeech-stable": ("UniSpeech", {**SMALL, "do_stable_layer_norm": True, "conv_bias": True}),
    "unispeech-sat": ("UniSpeechSat", {**SMALL, "mask_time_prob": 0.0, "feat_extract_norm": "layer"}),
    "unispeech-sat-stable": (
        "UniSpeechSat",
        {**SMALL, "do_stable_layer_norm": True, "num_conv_pos_embeddings": 9, "hidden_act": "relu"},
    ),
    "sew": ("SEW", {**SMALL}),
    "sew-squeeze-3": (
        "SEW",
        {**SMALL, "squeeze_factor": 3, "num_conv_pos_embeddings": 5, "feat_extract_norm": "layer"},
    ),
    "sew-no-projection": (
        "SEW",
        {
            **SMALL,
            "squeeze_factor": 1,
            "conv_dim": (7, 9, 24),
            "num_conv_pos_embeddings": 4,
            "conv_bias": True,
        },
    ),
    # Large enough for the blocked paths of the matrix library.
    "middle-group": (
        "Wav2Vec2",
        {
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "conv_dim": (64, 96, 128),
            "conv_stride": (5, 4, 4),
            "conv_kernel": (10, 4, 3),
            "num_conv_pos_embeddings": 32,
            "num_conv_pos_embedding_groups": 4,
        },
    ),
}
PARITY = [name for name in SPECS if not name.startswith("middle")]
LENGTHS = (300, 401, 557, 998, 1703, 2519, 4000, 7777)  # samples
TOLERANCE = 1e-4


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    family: str
    folder: Path
    theirs: Any
    ours: Any


def their_class(family: str, kind: str) -> Any:
    return getattr(transformers, f"{family}{kind}")


def waveform(samples: int) -> Tensor:
    """[samples], unlike that of another length."""
    draw = torch.Generator().manual_seed(samples)
    noise = torch.randn(samples, generator=draw)
    return noise + (torch.arange(samples) * (0.02 + 0.3 * torch.rand((), generator=draw))).sin()


def write_checkpoint(name: str, folder: Path) -> None:
    """Weights at which outputs vary with the input; norms and biases too, or leaving one out goes unseen."""
    family, fields = SPECS[name]
    torch.manual_seed(sum(map(ord, name)))
    model = their_class(family, "Model")(their_class(family, "Config")(**fields))
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not tensor.is_floating_point():
                continue
            noise = torch.randn_like(tensor)
            if key.endswith(("norm.weight", "original0", "running_var")):
                tensor.copy_(1 + 0.2 * noise.clamp(-2, 2))
            elif tensor.dim() < 2:
                tensor.copy_(0.2 * noise)
            else:
                tensor.copy_(1.2 * noise / tensor[0].numel() ** 0.5)
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def speech_pair(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> Callable[[str], Pair]:
    """Both libraries' model of a checkpoint of `SPECS`, made when first asked for. Leave them as they are."""
    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            family, folder = SPECS[name][0], tmp_path_factory.mktemp(name)
            write_checkpoint(name, folder)
            theirs = their_class(family, "Model").from_pretrained(folder, attn_implementation="eager").eval()
            ours = getattr(tritone, f"{family}Model").from_pretrained(folder)
            pairs[name] = Pair(family, folder, theirs, ours)
        return pairs[name]

    return pair


def assert_close(ours: Tensor, theirs: Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < TOLERANCE
    assert float(theirs.std()) > 1e-2  # or nothing was compared


@pytest.mark.parametrize("samples", [300, 998, 4001])
@pytest.mark.parametrize("name", PARITY)
@torch.no_grad()
def test_everything_returned_is_what_transformers_returns(name: str, samples: int, speech_pair: Any) -> None:
    pair = speech_pair(name)
    values = waveform(samples)[None]
    options = {"output_hidden_states": True, "output_attentions": True}
    theirs, ours = pair.theirs(values, **options), pair.ours(values, **options)
    assert list(ours.keys()) == list(theirs.keys())
    assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    for field in ("hidden_states", "attentions"):
        assert len(ours[field]) == len(theirs[field])
        for one, other in zip(ours[field], theirs[field], strict=True):
            assert one.shape == other.shape
            assert float((one - other).abs().max()) < TOLERANCE
    if "extract_features" in theirs:
        assert_close(ours.extract_features, theirs.extract_features)
    assert pair.ours.length(samples) == theirs.last_hidden_state.shape[1]
    plain = pair.ours(values, return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], ours.last_hidden_state)


@pytest.mark.parametrize(
    "name", [name for name in PARITY if "sat" in name or "mask_time_prob" not in SPECS[name][1]]
)
@torch.no_grad()
def test_given_masks_stand_where_transformers_puts_them(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    values = waveform(1703)[None]
    frames = pair.ours.feature_extractor.length(1703)
    masked = torch.rand(1, frames, generator=torch.Generator().manual_seed(3)) < 0.3
    given = pair.theirs(values, mask_time_indices=masked).last_hidden_state
    assert_close(pair.ours(values, mask_time_indices=masked).last_hidden_state, given)
    assert float((given - pair.theirs(values).last_hidden_state).abs().max()) > 0.05


@pytest.mark.parametrize("name", SPECS)
@torch.inference_mode()
def test_a_packed_utterance_has_the_bits_it_has_alone(name: str, speech_pair: Any) -> None:
    ours = speech_pair(name).ours
    rows = {samples: waveform(samples)[:, None] for samples in LENGTHS}
    alone = {samples: ours.forward_packed(row, packed_lengths([row]))[0] for samples, row in rows.items()}
    assert [len(one) for one in alone.values()] == [ours.length(samples) for samples in LENGTHS]
    for turn in (0, 3, 6):  # every second utterance comes first, in the middle and last
        order = [*LENGTHS[turn:], *LENGTHS[:turn]][:: 1 if turn != 3 else -1]
        together = [rows[samples] for samples in order]
        hidden, cu_tokens = ours.forward_packed(torch.cat(together), packed_lengths(together))
        for samples, one in zip(order, hidden.split(cu_tokens.diff().tolist()), strict=True):
            assert torch.equal(one, alone[samples]), (order, samples)


@pytest.mark.parametrize("name", SPECS)
@torch.no_grad()
def test_a_padded_row_has_the_bits_it_has_alone_and_zeros_behind(name: str, speech_pair: Any) -> None:
    ours = speech_pair(name).ours
    values, mask = padded(LENGTHS)
    options = {"output_hidden_states": True, "output_attentions": True}
    output = ours(values, mask, **options)
    token_mask = ours.token_mask(mask)
    assert token_mask.shape == output.last_hidden_state.shape[:2]
    for row, samples in enumerate(LENGTHS):
        solo = ours(waveform(samples)[None], **options)
        tokens = ours.length(samples)
        assert token_mask[row].sum() == tokens
        assert_padded(output.last_hidden_state[row], solo.last_hidden_state[0])
        for one, other in zip(output.hidden_states, solo.hidden_states, strict=True):
            assert_padded(one[row], other[0])
        for one, other in zip(output.attentions, solo.attentions, strict=True):
            assert torch.equal(one[row, :, : other.shape[2], : other.shape[3]], other[0])


def assert_padded(row: Tensor, alone: Tensor) -> None:
    assert torch.equal(row[: len(alone)], alone)
    assert not row[len(alone) :].any()


@pytest.mark.parametrize(
    "name", ["wav2vec2-group", "wav2vec2-layer-stable-adapter", "hubert-batch-norm", "sew"]
)
def test_gradients_are_those_of_transformers(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    ours, theirs = copy.deepcopy(pair.ours), copy.deepcopy(pair.theirs)
    values = waveform(1703)[None]
    for model in (ours, theirs):
        model(values).last_hidden_state.square().mean().backward()
    compared = 0
    for key, parameter in theirs.named_parameters():
        mine = ours.get_parameter(key)
        assert (mine.grad is None) == (parameter.grad is None), key
        if parameter.grad is not None:
            scale = max(float(parameter.grad.abs().max()), 1e-3)
            assert float((mine.grad - parameter.grad).abs().max()) < 1e-3 * scale, key
            compared += 1
    assert compared > 20


@pytest.mark.parametrize(
    "name",
    ["wav2vec2-group", "hubert-layer-stable", "hubert-batch-norm", "unispeech-sat-stable", "sew-squeeze-3"],
)
def test_a_seed_drops_the_same_things_in_training_as_in_transformers(name: str, speech_pair: Any) -> None:
    pair = speech_pair(name)
    ours, theirs = copy.deepcopy(pair.ours), copy.deepcopy(pair.theirs)
    values = waveform(998)[None]
    skipped = set()
    for model in (ours, theirs):
        model.train()
        model.config.apply_spec_augment = False  # drawn by another generator there
        model.config.layerdrop = 0.4
    for seed in range(8):
        outputs = []
        for model in (ours, theirs):
            torch.manual_seed(seed)
            outputs.append(model(values, output_hidden_states=True))
        assert_close(outputs[0].last_hidden_state.detach(), outputs[1].last_hidden_state.detach())
        skipped.add(len(outputs[0].hidden_states))
    assert len(skipped) > 1
    for key, buffer in theirs.named_buffers():
        assert torch.allclose(ours.get_buffer(key).float(), buffer.float(), atol=1e-5), key


@torch.no_grad()
def test_what_a_padded_batch_does_in_transformers(speech_pair: Any, report: Callable[[str], None]) -> None:
    names = ("wav2vec2-group", "middle-group", "hubert", "hubert-layer-stable", "sew")
    values, mask = padded(LENGTHS)
    report(f"{len(LENGTHS)} waveforms in one padded batch, output against each alone (random weights):")
    for name in (*names, "wav2vec2-layer-stable-adapter"):
        pair = speech_pair(name)
        norm = pair.theirs.config.feat_extract_norm
        # Published models with a group norm are to be given no mask, having been trained without.
        ways = {"masked": mask, "without a mask": None} if norm == "group" else {"masked": mask}
        theirs = {way: distances(pair.theirs, values, given) for way, given in ways.items()}
        told = (f"{way} {mean(off):.1%} off, at most {max(off):.1%}" for way, off in theirs.items())
        ours = distances(pair.ours, values, mask)
        same = f"Tritone: {ours.count(0.0)} of {len(ours)} the same bits"
        report(f"  {name} ({norm} norm): transformers {', '.join(told)}; {same}")
        assert not any(ours)
        # Or the comparison has lost its point, and the README its claim.
        assert norm != "group" or min(map(max, theirs.values())) > 1e-3


def distances(model: Any, values: Tensor, mask: Tensor | None) -> list[float]:
    """How far each row's output is from that of the row alone, in its norm; 0 where not a bit differs."""
    batch = model(values, attention_mask=mask).last_hidden_state
    found = []
    for row, samples in enumerate(LENGTHS):
        alone = model(waveform(samples)[None]).last_hidden_state[0]
        own = batch[row, : len(alone)]
        found.append(0.0 if torch.equal(own, alone) else float((own - alone).norm() / alone.norm()))
    return found


@pytest.mark.parametrize(
    "name", ["wav2vec2-layer-stable-adapter", "hubert", "unispeech", "unispeech-sat", "sew"]
)
def test_a_checkpoint_goes_to_transformers_and_back(name: str, speech_pair: Any, tmp_path: Path) -> None:
    pair = speech_pair(name)
    pair.ours.save_pretrained(tmp_path / "ours")
    theirs, report = their_class(pair.family, "Model").from_pretrained(
        tmp_path / "ours", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    for key, tensor in pair.theirs.state_dict().items():
        assert torch.equal(theirs.state_dict()[key], tensor), key
    theirs.save_pretrained(tmp_path / "theirs")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        again = (
            tritone.AutoConfig.from_pretrained(tmp_path / "theirs"),
            type(pair.ours).from_pretrained(tmp_path / "theirs"),
        )
    for key, tensor in pair.ours.state_dict().items():
        assert torch.equal(again[1].state_dict()[key], tensor), key
    assert again[1].config.to_dict() | {"dtype": None} == again[0].to_dict() | {"dtype": None}


@pytest.mark.parametrize("name", ["wav2vec2-group", "hubert-layer-stable", "sew"])
@torch.no_grad()
def test_weight_norm_is_read_in_its_older_spelling(name: str, speech_pair: Any, tmp_path: Path) -> None:
    pair = speech_pair(name)
    shutil.copytree(pair.folder, tmp_path / "old")
    file = tmp_path / "old" / "model.safetensors"
    tensors = {older_name(key): tensor for key, tensor in load_file(file).items()}
    assert sum(key.endswith(("weight_g", "weight_v")) for key in tensors) == 2
    save_file(tensors, file, metadata={"format": "pt"})
    old = type(pair.ours).from_pretrained(tmp_path / "old")
    values = waveform(998)[None]
    assert torch.equal(old(values).last_hidden_state, pair.ours(values).last_hidden_state)


def older_name(key: str) -> str:
    key = key.replace("parametrizations.weight.original0", "weight_g")
    return key.replace("parametrizations.weight.original1", "weight_v")


@pytest.mark.parametrize("name", ["wav2vec2-group", "hubert", "unispeech-stable", "unispeech-sat", "sew"])
@torch.no_grad()
def test_the_encoder_of_a_ctc_checkpoint_is_read(name: str, speech_pair: Any, tmp_path: Path) -> None:
    family, fields = SPECS[name]
    torch.manual_seed(1)
    theirs = their_class(family, "ForCTC")(their_class(family, "Config")(vocab_size=13, **fields)).eval()
    theirs.save_pretrained(tmp_path)
    ours = getattr(tritone, f"{family}Model").from_pretrained(tmp_path)
    values = waveform(998)[None]
    base = getattr(theirs, theirs.base_model_prefix)
    assert_close(ours(values).last_hidden_state, base(values).last_hidden_state)


@torch.no_grad()
def test_the_encoder_of_a_pretraining_checkpoint_is_read(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = transformers.Wav2Vec2Config(**SMALL, codevector_dim=8, num_codevectors_per_group=5)
    theirs = transformers.Wav2Vec2ForPreTraining(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = tritone.Wav2Vec2Model.from_pretrained(tmp_path)
    values = waveform(998)[None]
    assert_close(ours(values).last_hidden_state, theirs.wav2vec2(values).last_hidden_state)


@pytest.mark.parametrize("family", ["Wav2Vec2", "Hubert", "UniSpeech", "UniSpeechSat", "SEW"])
def test_a_default_configuration_is_transformers(family: str, tmp_path: Path) -> None:
    theirs = their_class(family, "Config")()
    ours = getattr(tritone, f"{family}Config")()
    assert ours.inputs_to_logits_ratio == theirs.inputs_to_logits_ratio
    mine = {key: plain(value) for key, value in ours.to_dict().items()}
    yours = {key: plain(value) for key, value in theirs.to_dict().items()}
    missing = {key: value for key, value in yours.items() if key not in mine and not neutral(key)}
    assert not missing
    assert {key: mine[key] for key in mine if key in yours} == {
        key: yours[key] for key in yours if key in mine
    }
    assert not mine.keys() - yours.keys()
    adopted = type(ours).adopt(theirs).to_dict()
    assert {key: adopted[key] for key in mine} == ours.to_dict()
    ours.save_pretrained(tmp_path)
    assert plain(their_class(family, "Config").from_pretrained(tmp_path).conv_dim) == mine["conv_dim"]
    assert tritone.AutoConfig.from_pretrained(tmp_path) == ours


def plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def neutral(key: str) -> bool:
    """Fields of transformers' base class that say nothing about the model."""
    return key in {
        "transformers_version",
        "_name_or_path",
        "chunk_size_feed_forward",
        "id2label",
        "label2id",
        "is_encoder_decoder",
        "problem_type",
        "architectures",
    }


def packed_lengths(rows: list[Tensor]) -> Tensor:
    """Offsets of tensors that will lie end to end: int32 [n + 1]."""
    return torch.tensor([0, *map(len, rows)]).cumsum(0).int()


def padded(lengths: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Waveforms [batch, longest] filled up with zeros, and their mask."""
    values = torch.nn.utils.rnn.pad_sequence([waveform(samples) for samples in lengths], batch_first=True)
    return values, (torch.arange(values.shape[1])[None] < torch.tensor(lengths)[:, None]).long()
