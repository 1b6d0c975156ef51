"""`python -m bench.engine [throughput | latency | decode-profile | fairness] ...`: throughput by default."""

import importlib
import sys

BENCHMARKS = {
    "throughput": "throughput",
    "latency": "latency",
    "decode-profile": "decode_profile",
    "fairness": "fairness",
}

if __name__ == "__main__":
    chosen = "throughput"
    if len(sys.argv) > 1 and sys.argv[1] in BENCHMARKS:
        chosen = sys.argv.pop(1)
    sys.exit(importlib.import_module(f".{BENCHMARKS[chosen]}", __package__).main())
