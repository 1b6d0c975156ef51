"""Machine and command behind a file of results."""

import os
import platform
import sys
from typing import Any

import torch


def about_machine(device: torch.device) -> dict[str, Any]:
    """Command, device, processor and versions."""
    try:
        import transformers

        version = transformers.__version__
    except ImportError:
        version = "not installed"
    return {
        "command": command_line(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_threads(),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": version,
        "python": platform.python_version(),
        "units": "seconds; rtfx is seconds of audio a second",
    }


def command_line() -> str:
    """The command as it was typed, `python -m bench.cpu ...`: sys.argv would name the module's file."""
    return " ".join(["python", *sys.orig_argv[1:]])


def cpu_threads() -> str:
    """The CPU with torch's number of threads, as a device's name."""
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def synchronize(device: torch.device) -> None:
    """Wait for a GPU's work; the CPU has none pending."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    """Name of the CPU; torch knows it from version 2.12 on."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    tiles = " with AMX" if known.get("amx_tile") else ""
    return f"{known.get('cpu_name') or 'processor unknown'}{tiles} ({platform.machine()})"
