"""The contract of engines: where evaluation runs, in this process (`local`) or on a Ray cluster (`ray_engine`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from promptseg.evaluation import jobs as evaluate_jobs
from promptseg.evaluation.company import Dissent
from promptseg.progress import Advance
from promptseg.runner import precision_guard
from promptseg.runner.groups import ModelOnDataset, PlannedCell
from promptseg.runner.options import Options
from promptseg.segmenter import Runtime


class Engine(Protocol):
    """Runs models on data sets."""

    def device(self, wanted: str) -> str:
        """Return the device that models run on, of a cluster its kind. Raises `ConfigError` if there is none."""

    def evaluate(
        self,
        group: ModelOnDataset,
        parts: Sequence[PlannedCell],
        jobs: Sequence[evaluate_jobs.CellJob],
        sink: evaluate_jobs.Sink,
        advance: Advance,
    ) -> tuple[evaluate_jobs.Evaluated, dict[str, Any]]:
        """Evaluate the jobs of the cells; return the outcome, and what results record of the engine.

        Each finished case is given to the sink at once.
        """

    def answers(
        self, group: ModelOnDataset, runtime: Runtime, trial: precision_guard.ProbeSet
    ) -> list[precision_guard.ProbeAnswer | Exception]:
        """Return the answers of the model, loaded for ``runtime``, to the probes of the precision guard."""

    def dissent(self, group: ModelOnDataset, runtime: Runtime, probes: precision_guard.ProbeSet) -> Dissent:
        """Return whether the model, loaded for ``runtime``, answers the same in any company; see `conformance`."""

    def check(self, group: ModelOnDataset, runtime: Runtime) -> None:
        """Load the model once, so that a runtime it refuses is reported before anything is computed."""

    def machine(self, device: str) -> str:
        """Return the name of a device; part of the identity of what holds on such machines only."""

    def close(self) -> None:
        """Release models, workers and cluster."""


def batch_size(options: Options, device: str) -> int | None:
    """Return the number of images encoded together; None where memory decides."""
    return options.batch_size or (None if device.startswith("cuda") else 1)
