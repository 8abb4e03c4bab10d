"""Devices: which one to evaluate on, its name, the share of each of several processes, the precision of a GPU."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass

from promptseg.errors import ConfigError
from promptseg.segmenter import Runtime


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

        Where several processes ask for ``auto`` or ``cuda``, GPUs are assigned in turn: each process has its own if
        there are enough. A device with a number is what the user chose.

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
            limit_threads(max(1, (os.cpu_count() or 1) // self.count))


def limit_threads(count: int) -> None:
    """Let torch use so many threads, also if it is imported later.

    Torch is not imported for it: that takes seconds in each worker, and a model may do without. Call this before a
    model is loaded and again afterwards: a library that was loaded earlier may have read the variable already.
    """
    os.environ["OMP_NUM_THREADS"] = str(count)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count)


ALONE = WorkerSlot()


def of_worker(workerinput: dict[str, object]) -> WorkerSlot:
    """Return the slot of an xdist worker; ``workerinput`` is empty in a process that is not one."""
    if not workerinput:
        return ALONE
    # A worker that replaces a crashed one has the next number, which may be the count or more.
    return WorkerSlot(int(str(workerinput["workerid"]).removeprefix("gw")), int(str(workerinput["workercount"])))


def set_tf32(runtime: Runtime) -> None:
    """Let an NVIDIA GPU round float32 products to TF32 where the run asks for it, and nowhere else.

    torch's own default is TF32 for convolutions, which would make the float32 reference one in name alone. This holds
    for the whole process: call it before each model that is loaded.
    """
    import torch

    wanted = "tf32" in runtime.fast
    torch.backends.cuda.matmul.allow_tf32 = wanted
    torch.backends.cudnn.allow_tf32 = wanted
