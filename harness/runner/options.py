"""The settings of a run, for pytest, the command line and Python."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from promptseg.specs import MaskChoice, Stratum
from promptseg.verdicts.baselines import MAX_DROP

DTYPES = ("float32", "bfloat16", "float16")
ENGINES = ("local", "ray")
FAST_PATHS = (
    "channels_last",
    "compile",
    "cuda_graphs",
    "sdpa",
    "tf32",
    "onnx_tensorrt",
    "onnx_cuda",
    "onnx_openvino",
    "onnx_coreml",
    "onnx_directml",
    "onnx_cpu",
)
PRECISION_BOUND = 0.01  # as the drop that a gate tolerates (MAX_DROP): a fast path must not use up more


class CacheLimit(NamedTuple):
    """A folder, and how many bytes it may take."""

    folder: Path
    limit: int


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for; None where nothing was specified and the default depends on the machine.

    ``root`` is the user's project: the folder of promptseg.toml, results and leaderboard.
    """

    root: Path = Path()
    models: tuple[str, ...] | None = None
    tasks: tuple[str, ...] | None = None
    modes: tuple[str, ...] | None = None
    limit: int | None = None
    until_sure: float | None = None
    seed: int = 0
    sample_seed: int | None = None
    select: MaskChoice = "confident"
    engine: str = "local"
    device: str = "auto"
    dtype: str = "float32"
    fast: frozenset[str] = frozenset()
    precision_bound: float = PRECISION_BOUND
    embedding_cache: CacheLimit | None = None
    batch_size: int | None = None
    max_errors: int = 0
    timeout: float | None = None
    rerun: bool = False
    require: bool = False
    save_masks: bool = False
    results: Path = Path("leaderboard/results")
    json: Path | None = None
    plan: bool = False
    thresholds: Path | None = None
    baseline: str | None = None
    max_drop: float = MAX_DROP
    strata: tuple[Stratum, ...] = ()

    @property
    def order_seed(self) -> int:
        """The seed that decides which cases a limited run takes: that of the prompts unless it was given one."""
        return self.seed if self.sample_seed is None else self.sample_seed

    @property
    def names_cells(self) -> bool:
        """Whether models, tasks or modes were asked for by option."""
        return not (self.models is None and self.tasks is None and self.modes is None)
