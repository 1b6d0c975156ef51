"""Figures of compiled machine code: the main loop's instructions and waits, and the widest copy.

Read from SASS, as `cuobjdump --dump-sass` lists it, or AMD assembly. They count instructions, not time, and
show without a GPU what a change of a kernel did.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

_SASS_INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")
_SASS_BRANCH_TARGET = re.compile(r"0x([0-9a-f]+)\s*$")
_SASS_MATRIX = re.compile(r"(?:HGMMA|HMMA|QGMMA|UTC\w*MMA|DMMA)\b")  # not HFMA2.MMA, which loads a constant
_SASS_WAIT = re.compile(r"(?:DEPBAR|WARPGROUP\.DEPBAR|SYNCS|BAR\.SYNC|WARPSYNC)\b")
_SASS_COPY = re.compile(r"LDGSTS(?:\.\w+)*|UBLKCP\w*|UTMALDG\w*")

_AMD_INSTRUCTION = re.compile(r"^\s+([a-z]\w+)(?:\s+(.*?))?\s*(?:;.*)?$")
_AMD_LABEL = re.compile(r"^([.\w]+):")


@dataclass(frozen=True, slots=True)
class Instruction:
    """Machine instruction: position in the listing, operation, and the position that it may jump to."""

    position: int
    operation: str
    target: int | None = None


@dataclass(frozen=True, slots=True)
class CodeFigures:
    """Figures of a kernel's machine code; those of the loop are 0 where it has none."""

    loop_instructions: int  # instructions in the main loop
    loop_waits: int  # of them, waits for copies, matrix units or other warps
    copy_bytes: int  # bytes per thread of the widest copy from global to shared memory; 0 for none


def of_sass(listing: str) -> CodeFigures:
    """Figures of an NVIDIA kernel, from the listing of `cuobjdump --dump-sass`."""
    code = []
    for address, operation, operands in _SASS_INSTRUCTION.findall(listing):
        branch = _SASS_BRANCH_TARGET.search(operands.strip()) if operation.startswith("BRA") else None
        code.append(Instruction(int(address, 16), operation, int(branch[1], 16) if branch else None))
    copies = [one.operation for one in code if _SASS_COPY.match(one.operation)]
    return _figures(code, _SASS_MATRIX, _SASS_WAIT, max(map(_sass_copy_bytes, copies), default=0))


def of_amdgcn(text: str) -> CodeFigures:
    """Figures of an AMD kernel, from its assembly. Copies go through registers: their width is 0."""
    labels: dict[str, int] = {}
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if label := _AMD_LABEL.match(line):
            labels[label[1]] = len(found)
        elif instruction := _AMD_INSTRUCTION.match(line):
            found.append((instruction[1], instruction[2] or ""))
    code = [
        Instruction(position, operation, labels.get(operands) if "branch" in operation else None)
        for position, (operation, operands) in enumerate(found)
    ]
    return _figures(code, re.compile("v_mfma"), re.compile("s_waitcnt|s_barrier"), 0)


def _figures(
    code: list[Instruction], matrix: re.Pattern[str], wait: re.Pattern[str], copy_bytes: int
) -> CodeFigures:
    loop = _main_loop(code, matrix)
    return CodeFigures(len(loop), sum(wait.match(one.operation) is not None for one in loop), copy_bytes)


def _main_loop(code: list[Instruction], matrix: re.Pattern[str]) -> list[Instruction]:
    """Loop with the most matrix instructions, else the longest without another inside; empty for none."""
    bounds = [
        (one.target, one.position)
        for one in code
        if one.target is not None and one.target < one.position  # a jump to itself pads the end
    ]
    loops = [[one for one in code if start <= one.position <= end] for start, end in bounds]

    def products(loop: Iterable[Instruction]) -> int:
        return sum(matrix.match(one.operation) is not None for one in loop)

    if any(products(loop) for loop in loops):
        return max(loops, key=lambda loop: (products(loop), -len(loop)))
    innermost = [
        loop
        for loop, (start, end) in zip(loops, bounds, strict=True)
        if not any(start <= other[0] and other[1] <= end and other != (start, end) for other in bounds)
    ]
    return max(innermost, key=len, default=[])


def _sass_copy_bytes(operation: str) -> int:
    """Bytes that one thread copies; 16 for bulk copies, which one thread starts for all."""
    width = re.search(r"\.(128|64|32)\b", operation)
    if width:
        return int(width[1]) // 8
    return 16 if operation.startswith(("UBLKCP", "UTMALDG")) else 4
