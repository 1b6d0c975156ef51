#!/usr/bin/env bash
# Everything to be done on a machine with a CUDA device, unattended: tests, then timings, into one folder.
#     bench/gpu.sh [FOLDER]      default: bench/results/<name of the GPU>
# tritone must be importable there (pip install --no-deps --no-build-isolation -e .).
set -uo pipefail
cd "$(dirname "$0")/.."
gpu="$(python3 -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))')" || exit 1
out="${1:-bench/results/$gpu}"
mkdir -p "$out"
failed=0
{
  date -u +%FT%TZ
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  python3 -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)'
} >"$out/machine.txt" 2>&1
python3 -m pytest -p no:cacheprovider tests/test_gpu.py 2>&1 | tee "$out/tests.txt" || failed=1
exit "$failed"
