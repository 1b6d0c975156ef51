"""Micro benchmarks of kernels, scheduler and tokenizers, by pytest-benchmark: `make bench`."""
