"""What one of several processes may use of a machine that they share: some of its cores, and one of its GPUs."""

from __future__ import annotations

import os
from dataclasses import dataclass

from promptseg.results import provenance


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
            ConfigError: as `promptseg.results.provenance.resolve_device`.
        """
        device = provenance.resolve_device(wanted)
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
