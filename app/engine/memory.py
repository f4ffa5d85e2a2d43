"""How much memory a device has left."""

from typing import Any

import torch


def free_bytes(device: torch.device) -> float:
    """Of the device; of the machine, for its CPU."""
    if device.type == "cuda":
        free: Any = torch.cuda.mem_get_info(device)[0]
        return float(free)
    with open("/proc/meminfo") as meminfo:
        fields = dict(line.split(":", 1) for line in meminfo)
    return float(fields["MemAvailable"].split()[0]) * 1024
