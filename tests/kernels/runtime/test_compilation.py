"""Ahead-of-time compilation of declared cases, in other processes: functions of this one are interpreted,
and cannot be compiled."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tritone.kernels.runtime.compilation import SHARED_LIMITS, Resources, declared_cases
from tritone.kernels.runtime.launch import ARCHITECTURES

FITTING = Resources(
    "linear",
    "sm_90",
    registers=168,
    shared=98_304,
    stack=0,
    local=0,
    matrix_unit="wgmma",
    asynchronous=True,
    threads=128,
    copy_bytes=16,
    loop_instructions=500,
    loop_waits=4,
)

HOARDING = """
import sys
import torch
import triton.language as tl
from tritone.kernels import __main__ as command
from tritone.kernels.runtime.launch import Kernel

def hoarding_kernel(values_ptr, BLOCK: tl.constexpr):
    values = tl.load(values_ptr + tl.arange(0, BLOCK))
    tl.store(values_ptr + tl.arange(0, BLOCK), values * tl.sum(values))  # holds all of them meanwhile

kernel = Kernel(hoarding_kernel)
pointers = {"values_ptr": torch.float32}
kernel.declare(architecture="sm_90", pointers=pointers, num_warps=1, BLOCK=int(sys.argv[1]))
sys.exit(command.main(["--kernel", "hoarding", *sys.argv[2:]]))
"""


def run(*arguments: object, **environment: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {name: str(value) for name, value in environment.items()},
    )


@pytest.mark.slow
def test_a_case_of_every_kernel_and_all_of_changed_ones_compile_for_four_targets_within_their_limits():
    done = run("-m", "tritone.kernels", "--changed", "--jobs", "1")
    print(done.stdout)
    assert done.returncode == 0, done.stderr[-4000:]
    for architecture in ARCHITECTURES:
        kernels = {case.kernel.name for case in declared_cases() if case.architecture == architecture}
        rows = re.findall(rf"^.* {architecture} +\d.*$", done.stdout, re.MULTILINE)
        assert len(rows) >= len(kernels) > 0


@pytest.mark.slow
def test_the_command_fails_where_registers_run_out_and_caches_what_is_green(tmp_path):
    script = tmp_path / "hoarding.py"  # a file, since Triton reads a kernel's source
    script.write_text(HOARDING)
    for block, options, status, summary in [
        (1024, ["--jobs", 2], 0, "1 compiled, 0 from the cache"),
        (1024, ["--jobs", 1], 0, "0 compiled, 1 from the cache"),
        (1024, ["--jobs", 1, "--no-cache"], 0, "1 compiled, 0 from the cache"),
        (16384, ["--jobs", 1], 1, "1 compiled, 0 from the cache"),
        (16384, ["--jobs", 1], 1, "1 compiled, 0 from the cache"),
    ]:
        done = run(script, block, *options, TRITONE_CACHE=tmp_path / "cache")
        assert done.returncode == status, done.stderr
        assert f"1 cases of 1 kernels: {summary}" in done.stdout
        assert ("registers ran out" in done.stderr) == bool(status)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({}, None),
        ({"stack": 8}, "8 bytes of stack"),
        ({"local": 16}, "16 of local memory"),
        ({"shared": (227 << 10) + 1}, "232449 bytes of shared memory, and sm_90 has 232448"),
        ({"architecture": "sm_80"}, None),
        ({"architecture": "sm_80", "shared": 150_000}, "sm_80 has 101376"),
        ({"architecture": "sm_100", "stack": 8}, None),
    ],
)
def test_a_complaint_names_the_limit(change, complaint):
    found = replace(FITTING, **change).complaint
    assert found is None if complaint is None else complaint in str(found)


@pytest.mark.parametrize(
    ("change", "programs"),
    [
        ({}, 2),  # 98,304 bytes and 1,024 of CUDA's own, of 233,472
        ({"shared": 0}, 3),  # 168 registers of 128 threads, of 65,536
        ({"shared": 0, "registers": 32}, 16),  # 2,048 threads
        ({"shared": 0, "registers": 33}, 12),  # registers come 256 to a warp: 33 cost as much as 40
        ({"architecture": "gfx942", "shared": 40_000}, 1),
    ],
)
def test_programs_of_a_multiprocessor_follow_from_registers_memory_and_threads(change, programs):
    assert replace(FITTING, **change).programs == programs


def test_every_architecture_has_a_limit_and_a_target():
    assert set(SHARED_LIMITS) == set(ARCHITECTURES)


@pytest.mark.slow
def test_a_variant_is_printed_below_the_shipped_case_and_its_stages_are_written(tmp_path):
    case = ["--kernel", "group_norm", "--target", "sm_90", "--case", "fp16 aligned"]
    done = run(
        "-m", "tritone.kernels", *case, "--set", "num_warps=8", "--dump", "ptx,sass", "--dump-to", tmp_path
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if " sm_90 " in line]
    assert len(rows) >= 2
    assert [row.endswith("with num_warps=8") for row in rows] == [False, True] * (len(rows) // 2)
    shipped, other = (next(folder.glob("*.ptx")).read_text() for folder in (tmp_path, tmp_path / "variant"))
    assert ".maxntid 256" not in shipped.replace(".reqntid", ".maxntid")
    assert ".maxntid 256" in other.replace(".reqntid", ".maxntid")
    assert "MUFU" in next(tmp_path.glob("*.sass")).read_text()


@pytest.mark.slow
def test_a_packed_case_is_found_in_its_cache_elsewhere(tmp_path):
    case = ["--kernel", "group_norm", "--target", "sm_90", "--case", "fp16 aligned", "--jobs", 1]
    archive, cache = tmp_path / "kernels.tar.xz", tmp_path / "elsewhere"
    done = run("-m", "tritone.kernels", *case, "--pack", archive)
    assert done.returncode == 0, done.stderr
    assert re.search(r"kernels\.tar\.xz: \d\.\d MiB, for Triton \d", done.stdout)
    added = run("-m", "tritone.kernels", "--unpack", archive, TRITON_CACHE_DIR=cache)
    assert "1 kernels added" in added.stdout, added.stderr
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")}
    assert before
    again = run("-m", "tritone.kernels", *case, "--no-cache", TRITON_CACHE_DIR=cache)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")} == before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "BLOCK"], "takes NAME=VALUE"),
        (["--set", "TILE=3"], "has no constant or option TILE; it has"),
        (["--case", "fp17", "--dump", "ptx"], "no declared case"),
        (["--dump", "java"], "has no stage 'java'"),
    ],
)
def test_a_wrong_variant_or_stage_is_refused_with_what_there_is(options, message):
    done = run("-m", "tritone.kernels", "--kernel", "layer_norm", "--target", "sm_90", *options)
    assert done.returncode == 2
    assert message in done.stderr


def test_an_interpreted_process_says_why_it_cannot_compile():
    done = run("-m", "tritone.kernels", "--kernel", "linear", "--jobs", 1, TRITON_INTERPRET=1)
    assert done.returncode != 0
    assert "unset it" in done.stderr
