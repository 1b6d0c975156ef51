"""On what machine and by what command numbers came about."""

import os
import platform
import sys
from typing import Any

import torch


def about_machine(device: torch.device) -> dict[str, Any]:
    """For the head of a file of results."""
    try:
        import transformers

        version = transformers.__version__
    except ImportError:
        version = "not installed"
    threads = torch.get_num_threads()
    on_cpu = f"CPU, {threads} thread{'s' if threads > 1 else ''}"
    return {
        "command": " ".join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else on_cpu,
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "torch": torch.__version__,
        "transformers": version,
        "python": platform.python_version(),
        "units": "seconds; rtfx is seconds of audio a second",
    }


def _processor() -> str:
    """What the CPU is, as far as torch knows: versions before 2.12 do not."""
    known = getattr(torch.cpu, "get_capabilities", dict)()
    tiles = " with AMX" if known.get("amx_tile") else ""
    return f"{known.get('cpu_name') or 'processor unknown'}{tiles} ({platform.machine()})"
