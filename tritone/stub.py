"""Type stub of the public names, `__init__.pyi`; `python -m tritone.stub` writes it."""

from pathlib import Path

from .names import HOMES

STUB = Path(__file__).with_name("__init__.pyi")


def stub() -> str:
    """Text of the type stub `__init__.pyi`, with an import of each public name."""
    homes = sorted((module, name) for name, module in HOMES.items())
    lines = [
        '"""Written by `python -m tritone.stub`."""',
        "",
        *(f"from .{module} import {name} as {name}" for module, name in homes),
        "",
        "__version__: str",
        "__all__: list[str]",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    STUB.write_text(stub(), encoding="utf-8")
