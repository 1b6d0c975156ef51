#!/usr/bin/env bash
# Everything to be done on a machine with a CUDA device, in stages of at most 4 minutes:
#     bash bench/gpu.sh STAGE [--dry] [--kernels ARCHIVE] [--output FOLDER]
#   A  kernels against their references and their floors, one case each; one model plain, with graphs and overlap,
#      alone and in a batch
#   B  tests on the GPU
#   C  profile of a decode step; throughput with the host's share; latency
#   D  times of all kernels, beside their peers
#   E  speed by the Open ASR Leaderboard's protocol, beside transformers
# Python with torch and triton suffices: nothing is installed, and the checkout need not be either. Kernels that are
# not in Triton's cache are compiled first, on all cores, or come from an ARCHIVE that
# `python -m tritone.kernels --target sm_90 --pack ARCHIVE` made elsewhere with the same version of Triton.
# Results are in one file, FOLDER/STAGE.tar.gz, written anew after each step; FOLDER is by default
# bench/results/<name of the GPU>. Lines with PASS and FAIL come first; a step that fails or takes too long does not
# stop the next. Ends with 1 if any did.
# --dry needs no GPU: tiny shapes, in Triton's interpreter or on the CPU; without --output it keeps no results.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 2
usage() { sed -n '3p' "$0" >&2; exit 2; }

stage="${1:-}" dry="" archive="" output=""
[[ "$stage" == [A-E] ]] || usage
shift
while (($#)); do
  case "$1" in
    --dry) dry=1 ;;
    --kernels) archive="$(realpath "${2:?--kernels takes an archive}")" && shift ;;
    --output) output="${2:?--output takes a folder}" && shift ;;
    *) usage ;;
  esac
  shift
done

work="$(mktemp -d)"
results="$work/$stage"
mkdir "$results" "$work/path"
ln -s "$PWD/tritone" "$work/path/tritone" # not the root: transformers would find a package `kernels` there
export PYTHONPATH="$work/path${PYTHONPATH:+:$PYTHONPATH}" PYTHONUNBUFFERED=1
if [[ -n "$dry" ]]; then
  export TRITON_CACHE_DIR="$work/triton" OMP_NUM_THREADS=1
  device=(--quick --device cpu)
  target="sm_90"
else
  device=(--device cuda)
  gpu="$(python3 -c 'import torch; print(torch.cuda.get_device_name(0).lower().replace(" ", "-"))')" || exit 1
  output="${output:-bench/results/$gpu}"
  target="$(python3 -c 'import torch
from tritone.kernels.runtime.launch import architecture_of
print(architecture_of(torch.device("cuda", 0)))')" || exit 1
fi
failed=0 passed=() running=""
end=$((SECONDS + 225))

pack() {
  [[ -n "$output" ]] || return 0
  mkdir -p "$output"
  tar -czf "$output/.$stage.partial" -C "$work" "$stage" && mv "$output/.$stage.partial" "$output/$stage.tar.gz"
}
trap 'pack; rm -rf "$work"' EXIT
trap '[[ -z "$running" ]] || kill "$running"; exit 143' INT TERM # timeout passes it on to all of its own

# step NAME SECONDS COMMAND...: at most so many seconds, or those that are left
step() {
  local name="$1" limit="$2" left=$((end - SECONDS)) status=0
  shift 2
  ((limit < left)) || limit="$left"
  echo "== $name, at most $limit s"
  if ((limit < 5)); then
    echo "FAIL $name: no time is left" | tee "$results/$name.txt"
    failed=1
    return
  fi
  timeout -k 5 "$limit" "$@" >"$results/$name.txt" 2>&1 &
  running=$!
  tail -f -s 0.2 -n +1 --pid="$running" "$results/$name.txt" &
  wait "$running" || status=$?
  running=""
  wait # for the last lines
  if ((status)); then
    failed=1
    ((status == 124 || status == 137)) && status="stopped after $limit s" || status="ended with $status"
    echo "FAIL $name: $status" | tee -a "$results/$name.txt"
  else
    echo "PASS $name" | tee -a "$results/$name.txt"
    passed+=("PASS $name")
  fi
  pack
}

rest() { echo $((end - SECONDS - ${1:-0})); }

machine() {
  date -u +%FT%TZ
  if command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
  fi
  git rev-parse HEAD 2>/dev/null
  python3 -c 'import torch, triton; print("torch", torch.__version__, "triton", triton.__version__)'
}

# tests SECONDS FILE...: a process for each file, several at a time
tests() {
  local jobs=$(($(nproc) / 2))
  export OMP_NUM_THREADS=1
  printf '%s\n' "${@:2}" | xargs -P "$((jobs > 0 ? jobs : 1))" -I FILE timeout "$1" python3 -m pytest \
    -p bench.common.failures -p no:cacheprovider -o addopts= --import-mode=importlib -q --no-header --tb=short FILE
}
export -f machine tests

step machine 30 bash -c machine
if [[ -n "$archive" ]]; then
  step unpack 30 python3 -m tritone.kernels --unpack "$archive"
elif [[ -z "$dry" ]]; then
  step compilation 110 python3 -m tritone.kernels --target "$target"
fi

case "$stage" in
  A)
    if [[ -n "$dry" ]]; then
      step kernels 120 python3 -m bench.kernels --dry --dtype float32
    else
      step kernels 90 python3 -m bench.kernels --quick --no-peers --seconds 70 --output "$results"
    fi
    step equality "$(rest)" python3 -m bench.engine.equality "${device[@]}" --output "$results"
    ;;
  B)
    if [[ -n "$dry" ]]; then
      files=(tests/test_gpu.py tests/kernels/runtime/test_packing.py)
    else
      mapfile -t files < <(find tests/kernels -name 'test_*.py' | sort)
      # The engine's tests that want a GPU write checkpoints and read audio; a bare machine lacks what that takes.
      if python3 -c 'import sentencepiece, soundfile, soxr' 2>/dev/null; then
        files=(tests/engine/test_compiled.py tests/engine/test_on_kernels.py tests/engine/tasks/test_classification.py
          tests/engine/tasks/test_ctc.py "${files[@]}")
      fi
      files=(tests/test_gpu.py "${files[@]}")
    fi
    step tests "$(rest)" bash -c 'tests "$@"' tests "$(rest 5)" "${files[@]}"
    ;;
  C)
    step decode 45 python3 -m bench.engine.decode_profile "${device[@]}" --output "$results"
    step throughput 120 python3 -m bench.engine "${device[@]}" --parts 2 --no-peers --seconds 90 --output "$results"
    step latency "$(rest)" python3 -m bench.engine.latency "${device[@]}" --seconds 30 --output "$results"
    ;;
  D)
    if [[ -n "$dry" ]]; then
      step kernels 120 python3 -m bench.kernels --dry --dtype float16
    else
      step kernels "$(rest)" python3 -m bench.kernels --seconds "$(rest 25)" --output "$results"
    fi
    ;;
  E) step leaderboard "$(rest)" python3 -m bench.engine.leaderboard "${device[@]}" --seconds "$(rest 25)" --output "$results" ;;
esac

echo "== stage $stage, $SECONDS s: failed and passed"
grep -h '^FAIL ' "$results"/*.txt
printf '%s\n' "${passed[@]}"
exit "$failed"
