"""Report of a measurement: tables, and what to do about them."""

from collections.abc import Iterator, Sequence

from .load import Level
from .measure import Measurement

_NEAR_BEST = 0.9  # of the best rate, from which on more at once is not worth its latency
_NOISE = 0.1  # share of the cores that others took, from which on it is said
_WORTH = 1.2  # ratio from which on a change is advised
_TITLES = {"features": "features", "encode": "encode", "prefill": "prompt", "decode": "decode step"}


def report(found: Measurement) -> Iterator[str]:
    """Lines of a report."""
    yield from _head(found)
    yield ""
    yield from _levels(found)
    if found.phases:
        yield ""
        yield from _phases(found)
    yield ""
    yield from _memory(found)
    yield from (f"- {line}" for line in advice(found))


def best(found: Measurement) -> Level:
    """Smallest level with nearly the highest rate."""
    highest = max(level.rate for level in found.levels)
    return next(level for level in found.levels if level.rate >= _NEAR_BEST * highest)


def advice(found: Measurement) -> Iterator[str]:
    """Sentences for a user: what the machine gives, and which knob to turn."""
    one, most = found.levels[0], best(found)
    amount, units = ("an hour of audio", 3600) if found.unit == "RTFx" else ("a million tokens", 1e6)
    wall, cpu = _time(units / most.rate), _time(units * most.cpu_per_unit)
    yield f"This machine gives {amount} in {wall}, for {cpu} of CPU time, with {most.at_once} at once."
    if most.rate >= _WORTH * one.rate:
        gain = f"{most.rate / one.rate:.1f} times as fast as one after the other"
        yield (
            f"{most.at_once} at once are {gain}: pass many files to one command, or keep as many requests in "
            "progress; the engine batches them itself."
        )
    if most is not found.levels[-1]:
        yield f"More than {most.at_once} at once add latency and hardly any speed."
    threads, cores = found.machine["threads"], found.machine["cores"]
    if not found.device.startswith("cuda") and threads < cores:
        yield f"torch uses {threads} of {cores} cores: try --threads {cores}."
    if found.half_rate is not None and found.half_rate >= _WORTH:
        gain = f"{found.half_rate:.1f} times as fast as in {found.dtype}"
        yield f"Products in bfloat16 are {gain} here: try --dtype bfloat16, and compare the texts."
    if found.num_beams > 1:
        yield f"Each request has {found.num_beams} beams: --num-beams 1 decodes faster, less exactly."
    others = [level.others for level in found.levels if level.others is not None]
    if others and max(others) >= _NOISE:
        yield (
            f"Other processes took up to {max(others):.0%} of the cores: rely on CPU seconds, and repeat it "
            "when the machine is idle."
        )
    if found.left_out:
        numbers = ", ".join(map(str, found.left_out))
        yield f"There was no time for {numbers} at once: give more --seconds."
    for problem in found.failed[:3]:
        yield f"Left out: {problem}"


def _head(found: Measurement) -> Iterator[str]:
    machine = found.machine
    where = machine.get("gpu") or f"{machine['processor']} ({machine['instructions']})"
    threads = f"{machine['threads']} thread{'s' if machine['threads'] > 1 else ''}"
    yield f"{found.model}, {found.parameters / 1e6:.1f} M parameters, {found.dtype}; {found.workload}"
    versions = f"torch {machine['torch']}, tritone {machine['tritone']}"
    yield f"{where}, {threads} on {machine['cores']} cores; {versions}"


def _levels(found: Measurement) -> Iterator[str]:
    of_audio = found.unit == "RTFx"
    unit, amount = ("audio hour", 3600) if of_audio else ("million tokens", 1e6)
    generates = any(level.first_token is not None for level in found.levels)
    head = ["at once", found.unit, "in fifths of the time", f"CPU s / {unit}"]
    head += ["first token p50", "p95"] if generates else []
    rows = []
    for level in found.levels:
        row = [str(level.at_once), _number(level.rate), f"{_number(level.lowest)} - {_number(level.highest)}"]
        row.append(_number(amount * level.cpu_per_unit))
        if generates:
            first = level.first_token
            row += ["", ""] if first is None else [_seconds(first.p50), _seconds(first.p95)]
        rows.append([*row, *(_seconds(one) for one in (level.total.p50, level.total.p95, level.total.p99))])
    yield from _table([*head, "result p50", "p95", "p99"], rows)


def _phases(found: Measurement) -> Iterator[str]:
    rates, shares = found.rates, found.phases
    assert rates is not None
    head = ["phase", "CPU time", "a call", "rows", f"of {rates.operations / 1e9:.0f} GFLOP/s"]
    head += [f"of {rates.bytes / 1e9:.1f} GB/s"] if "decode" in shares else []
    rows = []
    for name, share in shares.items():
        row = [_TITLES[name], f"{share.cpu:.0%}", f"{share.milliseconds:.2f} ms", f"{share.rows:.0f}"]
        row += ["" if one is None else f"{one:.0%}" for one in (share.products, share.memory)]
        rows.append(row[: len(head)])
    rest = max(1 - sum(share.cpu for share in shares.values()), 0.0)
    rows.append(["all else", f"{rest:.0%}", *[""] * (len(head) - 2)])
    number = found.levels[-1].at_once
    yield f"Phases with {number} at once; the rates are a thread's, measured here in {rates.dtype}:"
    yield from _table(head, rows)


def _memory(found: Measurement) -> Iterator[str]:
    parts = [] if found.peak_bytes is None else [f"{found.peak_bytes / 2**20:,.0f} MiB"]
    if found.gpu_peak_bytes is not None:
        parts.append(f"{found.gpu_peak_bytes / 2**20:,.0f} MiB on the GPU")
    if parts:
        yield f"Peak memory: {', '.join(parts)}."


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of a table with its first column on the left and the others on the right."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    for first, *others in (head, *rows):
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([first.ljust(widths[0]), *cells]).rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _seconds(value: float) -> str:
    return f"{1e3 * value:.0f} ms" if value < 1 else f"{value:.1f} s"


def _time(seconds: float) -> str:
    """Length of time in the unit that suits it."""
    for size, unit in ((7200, "h"), (120, "min")):
        if seconds >= size:
            return f"{seconds / (3600 if unit == 'h' else 60):.1f} {unit}"
    return f"{seconds:.1f} s"
