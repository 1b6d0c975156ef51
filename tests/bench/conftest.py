"""Modules of the benchmarks, imported from the repository's root, which is not on `sys.path`."""

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "bench"


class Modules(dict[str, ModuleType]):
    """Modules of `bench` by their last name, imported on first use; an entry point by its folder's."""

    def __missing__(self, name: str) -> ModuleType:
        (path,) = [*FOLDER.glob(f"*/{name}.py"), *FOLDER.glob(f"{name}/__main__.py")][:1]
        self[name] = importlib.import_module(
            ".".join(("bench", *path.relative_to(FOLDER).with_suffix("").parts))
        )
        return self[name]


@pytest.fixture(scope="session")
def bench() -> Modules:
    """The modules of `bench` by name."""
    if "bench" not in sys.modules:
        spec = importlib.util.spec_from_file_location("bench", FOLDER / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["bench"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["bench"])
    return Modules()
