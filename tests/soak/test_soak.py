"""The soak itself: a short run of it, and that it sees what it looks for."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="needs /proc and limits of memory"),
]


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_ten_seconds_of_the_soak_have_no_hang_loss_or_wrong_answer():
    done = run(HERE / "soak.py", "--seconds", 10, "--seed", 1)
    assert done.returncode == 0, done.stdout + done.stderr[-8000:]
    table = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert int(table["requests"].split()[0]) > 20
    assert table["hangs"] == table["losses"] == "0"


BROKEN = """
import sys
sys.path[:0] = [{here!r}, {support!r}]
import targets
def make(folder):
    def read(data):
        if data[:1] == b"\\x7f":
            if data[1:2] == b"\\xff":
                raise KeyError("planted")
        raise ValueError("refused")
    return [b"xyz"], read
targets.TARGETS["planted"] = targets.Target(make, ())
import guided
coverage = guided.Coverage.__init__
def of_this_file(self, files):
    coverage(self, frozenset(["<string>"]))
guided.Coverage.__init__ = of_this_file
sys.argv = ["guided", "planted", "--own", "--seconds", "8"]
guided.main()
"""


def test_the_guided_loop_finds_an_error_behind_two_branches():
    code = BROKEN.format(here=str(HERE), support=str(HERE.parent / "support"))
    done = run("-c", code)
    (found,) = json.loads(done.stdout)["found"]
    assert found.startswith("KeyError at <string>")
    assert base64.b64decode(found.split()[-1])[:2] == b"\x7f\xff"
