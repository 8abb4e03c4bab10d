"""Devices: which one to evaluate on, its name, and the share of one of several processes on a machine."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass

from promptseg.errors import ConfigError


def device_name(device: str) -> str:
    """Return the GPU's name for a CUDA device, the processor's architecture for the CPU."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return platform.machine()


def resolve_device(wanted: str) -> str:
    """Return ``wanted``, or for ``auto`` a GPU where there is one, else the CPU.

    Raises:
        ConfigError: torch does not know the device or this machine has none of it.
    """
    if wanted == "cpu":
        return wanted
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=wanted)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigError(f"device {wanted!r} cannot be used here: {reason}. Leave it out for auto.") from error
    return wanted


@dataclass(frozen=True)
class WorkerSlot:
    """One of ``count`` processes that evaluate on this machine at the same time, the ``index``-th of them."""

    index: int = 0
    count: int = 1

    def device(self, wanted: str) -> str:
        """Return the device that this process evaluates on.

        Where several processes ask for ``auto`` or ``cuda``, each takes a GPU of its own as long as there are enough,
        in turn where there are not. A device with a number is what the user chose.

        Raises:
            ConfigError: as `resolve_device`.
        """
        device = resolve_device(wanted)
        if self.count == 1 or device != "cuda":
            return device
        import torch

        return f"cuda:{self.index % torch.cuda.device_count()}"

    def take_cores(self) -> None:
        """Give torch this process's share: processes that each use all cores slow one another down severalfold."""
        if self.count > 1:
            import torch

            torch.set_num_threads(max(1, (os.cpu_count() or 1) // self.count))


ALONE = WorkerSlot()


def of_worker(workerinput: dict[str, object]) -> WorkerSlot:
    """Return the place of an xdist worker among all; ``workerinput`` is empty in a process that is none."""
    if not workerinput:
        return ALONE
    # A worker that takes the place of a crashed one has the next number, which may be the count or more.
    return WorkerSlot(int(str(workerinput["workerid"]).removeprefix("gw")), int(str(workerinput["workercount"])))
