"""The engine's host time, with GPUs that take no time: what Python alone could feed to one.

    python -m bench.engine.host [--model small] [--beams 1] [--mix] [--running 1024] [--recordings N]
                                [--no-graphs] [--profile loop|user|read] [--json FILE]
    python bench/engine/host.py --launches

Needs no GPU, but a CPU build of torch and g++ (`bench/fake_gpu`). Speech2Text with random weights in float16,
recordings of LibriSpeech's lengths, 3.4 tokens a second. Each request ends after its tokens (`endings.py`),
and kernels do nothing. `--model whisper-tiny` and `--model whisper-large-v3-turbo` have Whisper's sizes;
recordings are cut to its 30 s, and languages detected. The file's keys:

- rtfx_host: seconds of audio for each CPU second of the loop's thread, from waveforms to token ids
- rtfx_engine: seconds of audio for each CPU second of the whole process, from `Engine.submit` of arrays to
  texts; threads run beside each other, so a machine with several cores can feed more
- rtfx_engine_wall, rtfx_engine_loop: for each second by the clock, which other programs prolong; for each CPU
  second of the engine's loop alone
- us_per_request: CPU time of each of the engine's threads, and of the user's
- host_ms_per_step: CPU time of the loop's thread in a step; encode_ms is that of an encoder's call
- launch_us: host time of a launch with its checks and outputs, the median over the operations in launches_us
- nodes_per_step: kernels, torch's too, in a decode step; replayed is the share of steps that were recorded
- launches_per_encode: kernels, torch's too, of an encoder's call
- blocking_copies: copies that wait for the device, in all steps of the window
"""

if __name__ == "__main__" and not __package__:  # run as a file: start again as the module that it is
    import runpy
    import sys
    from pathlib import Path

    sys.path[0] = str(Path(__file__).resolve().parents[2])
    runpy.run_module("bench.engine.host", run_name="__main__", alter_sys=True)

import statistics
import sys
from pathlib import Path
from typing import Any

import torch

from bench import fake_gpu
from bench.common.command import make_parser
from bench.common.output import markdown, write_json


def main(given: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = make_parser(__doc__)
    parser.add_argument(
        "--model",
        default="small",
        help="size of Speech2Text, whisper-tiny, whisper-large-v3-turbo, or wav2vec2",
    )
    parser.add_argument("--beams", type=int, default=1)
    parser.add_argument("--mix", action="store_true", help="four languages; half of the requests sampled")
    parser.add_argument("--running", type=int, default=1024, help="requests decoded at once")
    parser.add_argument("--recordings", type=int, help="requests in all; 8 times those running by default")
    parser.add_argument("--no-graphs", action="store_true", help="launch every decode step")
    parser.add_argument("--budget", type=int, help="encoder positions in a step; the engine's by default")
    parser.add_argument("--only", choices=("loop", "engine"), help="measure only one of the two")
    parser.add_argument(
        "--profile", choices=("loop", "user", "read"), help="print a thread's slowest functions"
    )
    parser.add_argument("--launches", action="store_true", help="only host time of each operation's launches")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--quick", action="store_true", help="tiny model and few rounds: shows that it runs")
    arguments = parser.parse_args(given)
    if arguments.quick:
        arguments.model, arguments.running = "tiny", min(arguments.running, 8)
    fake_gpu.install()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    if not arguments.launches:
        results |= _measure(arguments)
    if not arguments.profile:
        from .launches import measure_launches, table

        measured = measure_launches(*((3, 10) if arguments.quick else (60, 100)))
        print(table(measured))
        results["launch_us"] = round(statistics.median(one.per_launch for one in measured), 2)
        results["launches_us"] = {one.operation: round(one.per_launch, 2) for one in measured}
    if arguments.json:
        write_json(arguments.json, results)
    return 0


def _measure(arguments: Any) -> dict[str, Any]:
    """Results of the loop and of the engine, rounded; prints them."""
    from . import endings
    from .host_time import load, measure_engine, measure_loop

    endings.install()
    config = {"graphs": not arguments.no_graphs}
    if arguments.budget:
        config |= {"encode_budget": arguments.budget, "predict_budget": arguments.budget}
    made = load(
        arguments.model,
        running=arguments.running,
        recordings=arguments.recordings or 8 * arguments.running,
        beams=arguments.beams,
        mix=arguments.mix,
        **config,
    )
    results: dict[str, Any] = {}
    if arguments.only != "engine":
        results |= measure_loop(made, arguments.profile)
    if arguments.only != "loop":
        found = measure_engine(made, arguments.profile)
        both = found.keys() & results.keys()
        results |= {f"engine_{name}" if name in both else name: value for name, value in found.items()}
    results = {name: _rounded(value) for name, value in results.items()}
    print(
        markdown(["measured", "value"], [[name, str(value)] for name, value in results.items()], padded=True)
    )
    return results


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 3 if value < 100 else None)


if __name__ == "__main__":
    sys.exit(main())
