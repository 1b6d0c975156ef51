"""Plugin of pytest that prints FAIL and a test's name as soon as it fails: `pytest -p bench.common.failures`.

At a run's end come the errors in full, which a time limit may cut off; the names are there by then.
"""

from typing import Any


def pytest_runtest_logreport(report: Any) -> None:
    """Print the name and the first line of the error of a test that failed."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        lines = str(crash.message if crash else report.longrepr).splitlines() or [""]
        print(f"\nFAIL {report.nodeid} ({report.when}): {lines[0][:200]}", flush=True)


def pytest_collectreport(report: Any) -> None:
    """Print the name of a module that could not be imported."""
    if report.failed:
        lines = str(report.longrepr).splitlines() or [""]
        print(f"\nFAIL {report.nodeid} (import): {lines[-1][:200]}", flush=True)


def pytest_terminal_summary(exitstatus: int, config: Any) -> None:
    """Print PASS or FAIL and the files of the run, of which several write to one log."""
    print(f"\n{'FAIL' if exitstatus else 'PASS'} {' '.join(config.args)}", flush=True)
