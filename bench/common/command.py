"""Command line shared by the benchmarks."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch


def make_parser(description: str | None) -> argparse.ArgumentParser:
    """A parser whose help is a module's docstring as it stands."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )


def engine_parser(description: str | None, output: Path | None, quick: str) -> argparse.ArgumentParser:
    """Options of the engine's benchmarks: device, threads, output folder, and `--quick` with its help."""
    parser = make_parser(description)
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", choices=("cuda", "cpu"), default=default)
    parser.add_argument("--threads", type=int, help="of torch on the CPU; its own choice by default")
    parser.add_argument("--output", type=Path, default=output)
    parser.add_argument("--quick", action="store_true", help=quick)
    return parser


def parse_engine(parser: argparse.ArgumentParser, given: Sequence[str] | None) -> argparse.Namespace:
    """Parse an `engine_parser`'s options, refuse a missing GPU, and set torch's threads."""
    arguments = parser.parse_args(given)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu runs on the processor")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return arguments
