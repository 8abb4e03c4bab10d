"""The one model that is in memory, and how this process is set up for it."""

from __future__ import annotations

import os

from promptseg.references import resolve
from promptseg.segmenter import Runtime, Segmenter
from promptseg.specs import ModelSpec
from promptseg.store import LocalModel


class Loaded:
    """Loads models one at a time: the one before is dropped first, since two large ones may not fit.

    Args:
        processes: how many share this machine's cores (xdist workers).
    """

    def __init__(self, processes: int = 1) -> None:
        self._processes = processes
        self._held: tuple[str, Runtime, Segmenter] | None = None
        self._seen: set[tuple[str, Runtime]] = set()

    def get(self, model: ModelSpec, files: LocalModel, runtime: Runtime) -> Segmenter:
        """Return a model, loaded now or before. Its plugin may raise anything."""
        if self._held is None or self._held[:2] != (model.name, runtime):
            self._held = None
            if self._processes > 1 and runtime.device == "cpu":
                _share_cores(self._processes)
            if runtime.device.startswith("cuda"):
                _set_tf32(runtime)
            loaded: Segmenter = resolve(model.load)(model, files.files, runtime)
            self._held = (model.name, runtime, loaded)
            self._seen.add((model.name, runtime))
        return self._held[2]

    def check(self, model: ModelSpec, files: LocalModel, runtime: Runtime) -> None:
        """Load a model once, so that what it refuses is told before anything is computed."""
        if (model.name, runtime) not in self._seen:
            self.get(model, files, runtime)


def _share_cores(processes: int) -> None:
    """Give torch its share of the cores: processes that each use them all slow one another down severalfold."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 1) // processes))


def _set_tf32(runtime: Runtime) -> None:
    from promptseg.models._fast import set_tf32

    set_tf32(runtime)
