#!/usr/bin/env bash
# Everything to be done on a machine with a CUDA device, unattended and in under 9 minutes: compilation, tests,
# timings of the kernels and of the engine, beside transformers if it is there; all of it into one folder.
#     bench/gpu.sh [FOLDER]      default: bench/results/<name of the GPU>
# tritone must be importable there (pip install --no-deps --no-build-isolation -e .). Each step has a time limit
# and writes what it says to its own file; one that fails does not stop the next. Ends with 1 if any did.
set -uo pipefail
cd "$(dirname "$0")/.."
gpu="$(python3 -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))')" || exit 1
out="${1:-bench/results/$gpu}"
mkdir -p "$out"
failed=0
end=$((SECONDS + 515))

left() { echo $((end - SECONDS)); }

# step NAME SECONDS COMMAND...
step() {
  local name="$1" limit="$2"
  shift 2
  ((limit < $(left))) || limit="$(left)"
  echo "== $name, at most $limit s"
  if ((limit < 5)); then
    echo "$name: no time is left" | tee "$out/$name.txt"
    failed=1
  elif ! timeout -k 10 "$limit" "$@" 2>&1 | tee "$out/$name.txt"; then
    echo "$name: failed, or stopped after $limit s" | tee -a "$out/$name.txt"
    failed=1
  fi
}

machine() {
  date -u +%FT%TZ
  nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  python3 -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)' || return 1
  python3 -c 'import soundfile, soxr' 2>/dev/null || echo "no soundfile or no soxr: nothing here reads audio files"
}
export -f machine

# Workers share the GPU; most of the time goes into compiling.
workers=()
if python3 -c 'import xdist' 2>/dev/null; then workers=(-n 8); fi
tests=(tests/kernels tests/test_gpu.py)
# The engine's own tests write checkpoints and read audio; a machine with a GPU may lack what that takes.
if python3 -c 'import sentencepiece, soundfile, soxr' 2>/dev/null; then tests+=(tests/engine/test_compiled.py tests/engine/test_on_kernels.py); fi
# The only test there that wants a GPU; the others are of the CPU.
if python3 -c 'import transformers, soundfile, soxr' 2>/dev/null; then tests+=(tests/engine/tasks/test_classification.py::test_on_a_gpu_many_at_once_are_to_the_bit_what_each_is_alone); fi
engine=195 # seconds that the four steps at the end shall have, if those before them leave so much
reserve=15 # of a step's limit, for what a benchmark does past its own --seconds

step machine 30 bash -c machine
step compilation 120 python3 -m tritone.kernels
step tests 180 env OMP_NUM_THREADS=2 python3 -m pytest -p no:cacheprovider -q "${workers[@]}" "${tests[@]}"
budget=$(($(left) - engine - 40))
((budget > 40)) || budget=40
step kernels $((budget + 40)) python3 -m bench.kernels --output "$out" --seconds $((budget < 280 ? budget : 280))
step decode 20 python3 -m bench.engine.decode_profile --output "$out"
step latency 35 python3 -m bench.engine.latency --output "$out" --seconds 25
step plain 40 python3 -m bench.engine --output "$out/plain" --without graphs overlap --parts 1 --seconds 30
step throughput "$(left)" python3 -m bench.engine --output "$out" --seconds $(($(left) - reserve))
echo "== done after $SECONDS s: $out, $( ((failed)) && echo 'something failed' || echo 'nothing failed')"
exit "$failed"
