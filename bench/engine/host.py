"""The engine's host time, with GPUs that take no time: `python -m bench.engine.host --launches`.

Needs no GPU, but a CPU build of torch and g++ (`bench/fake_gpu`).
"""

import sys
from pathlib import Path
from typing import Any

import torch

from .. import fake_gpu
from ..common.command import make_parser
from ..common.output import write_json
from .launches import measure_launches, table


def main(given: list[str] | None = None) -> int:
    """Run the command, and return its exit status."""
    parser = make_parser(__doc__)
    parser.add_argument("--launches", action="store_true", help="host time of each operation's launches")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--quick", action="store_true", help="few rounds: shows that it runs")
    arguments = parser.parse_args(given)
    if not arguments.launches:
        parser.error("nothing to measure; pass --launches")
    fake_gpu.install()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    measured = measure_launches(*((3, 10) if arguments.quick else (60, 100)))
    print(table(measured))
    results["launch_us"] = {one.operation: round(one.per_launch, 2) for one in measured}
    if arguments.json:
        write_json(arguments.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
