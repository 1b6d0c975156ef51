"""Checkpoints with random weights that transformers writes, both models of each, and a logits recorder."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import text_classifiers
import text_decoders
import torch
import waveform_encoders
from parity import two_stacks
from torch import Tensor
from transformers import Speech2TextConfig, Speech2TextForConditionalGeneration
from transformers.utils import logging

import tritone
from tritone.scheduler.loop import GenerationLoop
from tritone.scheduler.request import Request, RequestOutput
from tritone.scheduler.runner import ModelRunner


@dataclass(frozen=True)
class Spec:
    """A checkpoint: its configuration, and how its random weights are drawn.

    Args:
        config: fields of `Speech2TextConfig` that are not its defaults.
        seed: chosen so that transcripts differ, differ in length, and some reach their end token.
        end_gain: multiplies the output row of every end token; above 1 they are the best token more often.
    """

    config: dict[str, Any]
    seed: int
    end_gain: float = 3.0


# Sizes that a padded or vectorized kernel would like to be rounder than they are.
SPECS: dict[str, Spec] = {
    "two-convs": Spec(
        two_stacks(101, 36, layers=(2, 2), heads=(4, 2), feed_forward=(50, 70))
        | {"conv_channels": 24, "conv_kernel_sizes": (5, 3)},
        seed=15,
    ),
    "one-conv-pad-0": Spec(
        two_stacks(31, 20, layers=(1, 1), heads=(2, 5), feed_forward=(33, 17))
        | {"num_conv_layers": 1, "conv_kernel_sizes": (3,), "pad_token_id": 0, "bos_token_id": 1},
        seed=3,
        end_gain=2.0,
    ),
    "three-convs-gelu": Spec(
        two_stacks(257, 52, layers=(6, 3), heads=(2, 13), feed_forward=(90, 61))
        | {
            "num_conv_layers": 3,
            "conv_kernel_sizes": (7, 5, 3),
            "conv_channels": 30,
            "activation_function": "gelu",
            "scale_embedding": False,
        },
        seed=4,
    ),
    "six-decoder-layers-tied": Spec(
        two_stacks(64, 44, layers=(3, 6), heads=(1, 11), feed_forward=(44, 88))
        | {
            "conv_channels": 40,
            "conv_kernel_sizes": (3, 7),
            "scale_embedding": False,
            "tie_word_embeddings": True,
        },
        seed=3,
    ),
    "odd-width-pad-5": Spec(
        two_stacks(89, 33, layers=(2, 4), heads=(3, 1), feed_forward=(64, 35))
        | {
            "num_conv_layers": 1,
            "conv_kernel_sizes": (7,),
            "activation_function": "gelu",
            "pad_token_id": 5,
            "input_feat_per_channel": 13,
            "input_channels": 3,
        },
        seed=8,
    ),
    "default-vocabulary": Spec(
        two_stacks(10000, 24, layers=(1, 2), heads=(3, 4), feed_forward=(96, 40))
        | {"conv_channels": 16, "decoder_start_token_id": 3},
        seed=4,
    ),
    # For the tests of invariance: large enough for the blocked paths of the matrix library.
    "middle": Spec(
        two_stacks(1000, 256, layers=(2, 2), heads=(4, 4), feed_forward=(512, 512), conv_channels=256),
        seed=3,
    ),
}
PARITY = [name for name in SPECS if name != "middle"]


@dataclass(frozen=True)
class Pair:
    """One checkpoint in both libraries."""

    name: str
    folder: Path
    theirs: Any
    ours: Any

    @property
    def width(self) -> int:
        """Features of a frame."""
        return self.theirs.config.input_feat_per_channel * self.theirs.config.input_channels

    def features(self, frames: int) -> Tensor:
        """Features [1, frames, width] of a recording that is unlike the one of another length."""
        draw = torch.Generator().manual_seed(frames)
        timbre, drift = torch.randn(2, self.width, generator=draw)
        ramp = torch.linspace(-1, 1, frames)[:, None]
        return (torch.randn(frames, self.width, generator=draw) + timbre + ramp * drift)[None]


class Recorder:
    """A model that remembers what `decode` gave each request of a loop: [steps][rows, vocabulary]."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.runner: ModelRunner | None = None
        self.recorded: dict[int, list[Tensor]] = {}  # `logits` is the model's own
        self.most_requests = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def decode(self, token_ids: Tensor, positions: Tensor, attention: Any) -> Tensor:
        """The model's logits, with a copy for each request."""
        logits = self.model.decode(token_ids, positions, attention)
        assert self.runner is not None
        # One of several where the processor's cores share a step.
        batches = self.runner._decoder.batches
        (requests,) = (
            batch.requests
            for batch in batches
            # Another core may not have made its batch's tensors yet.
            if batch.tensors is not None and batch.tensors.cross is attention.cross
        )
        bounds = attention.cross.cu_rows.tolist()
        assert bounds[-1] == logits.shape[0]
        for index, running in enumerate(requests):
            rows = logits[bounds[index] : bounds[index + 1]].clone()
            self.recorded.setdefault(running.request.request_id, []).append(rows)
        self.most_requests = max(self.most_requests, sum(len(batch.requests) for batch in batches))
        return logits


@dataclass
class Run:
    """Results of a loop: each request's output and its logits step by step."""

    completions: dict[int, RequestOutput] = field(default_factory=dict, repr=False)
    logits: dict[int, list[Tensor]] = field(default_factory=dict, repr=False)
    most_requests: int = 0  # decoded in one step
    most_waiting: int = 0


def run_requests(
    model: Any,
    requests: list[Request],
    front_end: Any = None,
    *,
    spare_pages: int | None = None,
    num_rows: int | None = None,
    encode_budget: int = 4096,
    arrivals: int | None = None,
) -> Run:
    """Run requests through one loop, by default on a cache that holds them all, and record their logits.

    Args:
        spare_pages: size the cache for the largest request alone and so many pages more.
        arrivals: submit so many before every step; all before the first by default.
    """
    recorder = Recorder(model)
    sizing = ModelRunner(recorder, front_end, num_pages=0, num_slots=0)  # type: ignore[arg-type]
    demands = [sizing.demand(request) for request in requests]
    pages = [demand.pages for demand in demands]
    runner = ModelRunner(
        recorder,  # type: ignore[arg-type]
        front_end,
        num_pages=sum(pages) if spare_pages is None else max(pages) + spare_pages,
        num_slots=num_rows or sum(demand.hypotheses for demand in demands),
        max_length=max(request.options.max_length for request in requests),
    )
    recorder.runner = runner
    loop = GenerationLoop(runner, encode_budget=encode_budget)
    run = Run(logits=recorder.recorded)
    pending = list(requests)
    while pending or loop.has_work:
        count = len(pending) if arrivals is None else arrivals
        for request in pending[:count]:
            loop.submit(request)
        del pending[:count]
        for event in loop.step():
            if isinstance(event, RequestOutput):
                if event.error is not None:
                    raise event.error
                run.completions[event.request_id] = event
        run.most_waiting = max(run.most_waiting, loop.stats().waiting)
    run.most_requests = recorder.most_requests
    return run


def write_checkpoint(spec: Spec, folder: Path) -> None:
    """Draw weights at which outputs vary with the input, and let transformers write them.

    Norms and biases are drawn too: at their usual ones and zeros, leaving one out would go unnoticed.
    """
    torch.manual_seed(spec.seed)
    config = {"max_target_positions": 80, "tie_word_embeddings": False, **spec.config}
    model = Speech2TextForConditionalGeneration(Speech2TextConfig(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn_like(parameter)
            if name.endswith("layer_norm.weight"):
                parameter.copy_(1 + 0.2 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.2 * noise)
            elif "embed_tokens" in name or "lm_head" in name:
                parameter.copy_(1.8 * noise / spec.config["d_model"] ** 0.5)
            else:
                parameter.copy_(1.5 * noise / parameter[0].numel() ** 0.5)
        model.lm_head.weight[model.config.eos_token_id] *= spec.end_gain
    model.save_pretrained(folder)


@pytest.fixture(scope="session", autouse=True)
def _quiet() -> None:
    """transformers warns of every option that it is given beside another, and draws bars."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """One thread unless a test says otherwise: the machine may have no more, and the models are small."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, _quiet: None) -> Callable[[str], Path]:
    """The folder of a checkpoint of `SPECS`, written when first asked for."""
    folders: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            write_checkpoint(SPECS[name], folders[name])
        return folders[name]

    return folder


@pytest.fixture(scope="session")
def load(_quiet: None) -> Callable[[Path], Pair]:
    """Both libraries' model of a folder."""

    def pair(folder: Path) -> Pair:
        theirs = Speech2TextForConditionalGeneration.from_pretrained(folder).eval()
        ours = tritone.AutoModelForSpeechSeq2Seq.from_pretrained(folder)
        return Pair(folder.name, folder, theirs, ours)

    return pair


@pytest.fixture(scope="session")
def pair_of(checkpoint: Callable[[str], Path], load: Callable[[Path], Pair]) -> Callable[[str], Pair]:
    """Both libraries' model of a checkpoint of `SPECS`, loaded once. Leave them as they are."""
    pairs: dict[str, Pair] = {}

    def pair(name: str) -> Pair:
        if name not in pairs:
            pairs[name] = load(checkpoint(name))
        return pairs[name]

    return pair


@pytest.fixture
def pair(request: pytest.FixtureRequest, pair_of: Callable[[str], Pair]) -> Pair:
    """Each checkpoint of the parity tests in turn, or those that a test names by indirect parametrization."""
    return pair_of(request.param)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `pair` and names no checkpoint gets all of `PARITY`."""
    named = any(
        "pair" in str(mark.args[0]).replace(",", " ").split()
        for mark in metafunc.definition.iter_markers("parametrize")
    )
    if "pair" in metafunc.fixturenames and not named:
        metafunc.parametrize("pair", PARITY, indirect=True)


@pytest.fixture(scope="session")
def run_loop() -> Callable[..., Run]:
    """`run_requests`: test modules cannot import from here in pytest's importlib mode."""
    return run_requests


@pytest.fixture(scope="session")
def make_request() -> Callable[..., Request]:
    """A request of features [1, frames, features] or of a waveform [samples], with `generate`'s options."""

    def make(pair: Pair, request_id: int, inputs: Tensor, priority: int = 0, **options: Any) -> Request:
        recording = inputs[0] if inputs.dim() == 3 else inputs
        return Request(request_id, recording, pair.ours.resolve_options(**options), priority)

    return make


@pytest.fixture(scope="session")
def speech_pair(
    tmp_path_factory: pytest.TempPathFactory, _quiet: None
) -> Callable[[str], waveform_encoders.Pair]:
    """Both libraries' model of one of `waveform_encoders.SPECS`, made once. Leave them as they are."""
    return cache(lambda name: waveform_encoders.make_pair(name, tmp_path_factory.mktemp("encoder")))


@pytest.fixture(scope="session")
def classifier_of(
    tmp_path_factory: pytest.TempPathFactory, _quiet: None
) -> Callable[[str], text_classifiers.Classifier]:
    """Both libraries' model of one of `text_classifiers.SPECS`, made once. Leave them as they are."""
    return cache(lambda name: text_classifiers.make_classifier(name, tmp_path_factory.mktemp("classifier")))


@pytest.fixture(params=text_classifiers.SPECS)
def both(
    request: pytest.FixtureRequest, classifier_of: Callable[[str], text_classifiers.Classifier]
) -> text_classifiers.Classifier:
    """Each classifier of text, or those that a test names by indirect parametrization."""
    return classifier_of(request.param)


@pytest.fixture(scope="session")
def decoder_of(
    tmp_path_factory: pytest.TempPathFactory, _quiet: None
) -> Callable[[str], text_decoders.Decoder]:
    """Both libraries' model of one of `text_decoders.SPECS`, made once. Leave them as they are."""
    return cache(lambda name: text_decoders.make_decoder(name, tmp_path_factory.mktemp("decoder")))


@pytest.fixture(params=text_decoders.SPECS)
def decoder(
    request: pytest.FixtureRequest, decoder_of: Callable[[str], text_decoders.Decoder]
) -> text_decoders.Decoder:
    """Each text decoder, or those that a test names by indirect parametrization."""
    return decoder_of(request.param)


@pytest.fixture
def edit_json() -> Callable[..., None]:
    """Set fields of a JSON file, and drop those given as None."""

    def edit(path: Path, **fields: Any) -> None:
        content = {**json.loads(path.read_text()), **fields}
        path.write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return edit


@pytest.fixture(scope="session")
def report(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Adds a line to what pytest prints when all tests have run."""
    return request.config.stash.setdefault(_REPORT, []).append


_REPORT = pytest.StashKey[list[str]]()


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print what tests reported, whether or not output is captured."""
    if lines := config.stash.get(_REPORT, []):
        terminalreporter.section("conformance")
        for line in lines:
            terminalreporter.write_line(line)
