"""Hundreds of damaged checkpoints of TensorFlow and Flax: tensors or an error, in little memory and time.

They are read by a child process, this file run as a script, under a limit of memory, so that what a file asks
for, or a crash of the HDF5 library, fails the test and not the machine.
"""

import io
import json
import os
import random
import resource
import runpy
import signal
import subprocess
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import pytest

TESTS = Path(__file__).parents[2]
GOLDEN = TESTS / "conformance" / "golden"
COUNTS = {"flax_model.msgpack": 400, "tf_model.h5": 120, "model.ckpt.index": 400}
ADDRESSES = 1 << 29  # bytes that the child may map beyond what it has once all is imported
SECONDS = 5  # that one file may take


def golden(framework: str, name: str) -> bytes:
    with zipfile.ZipFile(GOLDEN / f"{framework}_checkpoints.zip") as archive:
        return archive.read(name)


def sources() -> dict[str, list[bytes]]:
    return {
        "flax_model.msgpack": [
            golden("flax", f"{name}/flax_model.msgpack") for name in ("bert", "bert_decoder")
        ],
        "tf_model.h5": [golden("tensorflow", f"{name}/tf_model.h5") for name in ("albert", "gpt2")],
        "model.ckpt.index": [
            golden("tensorflow", f"bert/index/{name}.index")
            for name in ("model.ckpt", "compressed.model.ckpt")
        ],
    }


@pytest.mark.skipif(sys.platform != "linux", reason="needs limits of memory")
@pytest.mark.parametrize("kind", COUNTS)
def test_damaged_files_give_tensors_or_an_error_in_bounded_memory_and_time(kind, tmp_path):
    if kind == "tf_model.h5":
        pytest.importorskip("h5py")
    run = subprocess.run(
        [sys.executable, __file__, kind, str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert run.returncode == 0, f"after {outcomes[-1:]}: {run.stderr[-3000:]}"
    wrong = [outcome for outcome in outcomes if outcome["wrong"]]
    assert not wrong, f"{len(wrong)}, such as\n" + "\n".join(map(str, wrong[:5]))
    assert len(outcomes) == COUNTS[kind]
    assert max(outcome["seconds"] for outcome in outcomes) < SECONDS
    kinds = Counter(outcome["outcome"].split("(")[-1][:25] for outcome in outcomes)
    assert len(kinds) > 5, kinds


def damaged_files(kind: str) -> Iterator[bytes]:
    from damage import damaged

    made = by_path(Path(__file__).with_name("test_tensorflow.py"))
    contents = sources()[kind]
    for number in range(COUNTS[kind]):
        draw = random.Random(f"{kind} {number}")
        one, other = draw.choice(contents), draw.choice(contents)
        if kind == "model.ckpt.index" and number % 4:  # with a checksum of the damage
            inner, packed = first_block(one)
            yield made.table([], made.block([], packed, damaged(inner, 100, other, draw)))
        else:
            yield damaged(one, 400, other, draw)


def by_path(path: Path) -> Any:
    """Another file of tests as a module."""
    spec = spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def first_block(index: bytes) -> tuple[bytes, int]:
    """The first block of tensors in an index, and whether it is compressed."""
    from tritone.models.checkpoints.protobuf import read_varint
    from tritone.models.checkpoints.tensorflow import _block, _block_entries

    numbers, at = [], 0
    for _ in range(4):
        number, at = read_varint(index[-48:], at)
        numbers.append(number)
    _, where = next(_block_entries(_block(index, numbers[2], numbers[3])))
    offset, at = read_varint(where, 0)
    end = offset + read_varint(where, at)[0]
    return index[offset:end], index[end]


def run_in_fork(
    command: list[str], *, input: bytes, capture_output: bool, timeout: int
) -> subprocess.CompletedProcess[bytes]:
    """`subprocess.run` of a script in a fork of this process, which has imported h5py: 0.2 s less each."""
    with TemporaryFile() as output, TemporaryFile() as errors:
        child = os.fork()
        if not child:
            code = 1
            try:
                signal.alarm(timeout)
                for file, standard in ((output, 1), (errors, 2)):
                    os.dup2(file.fileno(), standard)
                sys.stdin = io.TextIOWrapper(io.BytesIO(input))
                runpy.run_path(command[-1], run_name="__main__")
                sys.stdout.flush()
                code = 0
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(command, code, output.read(), errors.read())


def main(kind: str, folder: Path) -> None:
    """Read every damaged file and print its outcome as a line of JSON."""
    from checkpoints import read_converted as read

    framework = "Flax" if kind.endswith("msgpack") else "TensorFlow"
    for number in range(3):
        name = f"model.ckpt.data-0000{number}-of-00003"
        (folder / name).write_bytes(golden("tensorflow", f"bert/index/{name}"))
    files = list(damaged_files(kind))
    (folder / kind).write_bytes(sources()[kind][0])
    read(folder, framework)  # imports the readers, and runs the table's script of HDF5 as users do
    if kind == "tf_model.h5":
        import h5py  # noqa: F401 - for the forks

        subprocess.run = run_in_fork  # type: ignore[assignment]
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for number, content in enumerate(files):
        (folder / kind).write_bytes(content)
        start, wrong = time.process_time(), ""
        try:
            outcome = f"{len(read(folder, framework))} tensors"
        except (ValueError, OSError) as error:
            outcome = str(error)
            if len(outcome) > 1500 or "\n" in outcome or str(folder) not in outcome:
                wrong = "an error that does not name its file, or is long"
        except BaseException:
            outcome = wrong = traceback.format_exc()[-2000:]
        seconds = time.process_time() - start
        line = {"number": number, "outcome": outcome, "wrong": wrong, "seconds": seconds}
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    sys.path.append(str(TESTS / "support"))
    main(sys.argv[1], Path(sys.argv[2]))
