"""`python -m bench.engine [throughput | latency | fairness | long | ...] ...`: throughput by default."""

import importlib
import sys

BENCHMARKS = {
    "throughput": "throughput",
    "latency": "latency",
    "decode-profile": "decode_profile",
    "fairness": "fairness",
    "long": "long",
}

if __name__ == "__main__":
    chosen = "throughput"
    if len(sys.argv) > 1 and sys.argv[1] in BENCHMARKS:
        chosen = sys.argv.pop(1)
    sys.exit(importlib.import_module(f".{BENCHMARKS[chosen]}", __package__).main())
