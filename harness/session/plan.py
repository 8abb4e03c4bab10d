"""What a run is going to do, said before it begins: cells, cases, downloads, disk; and how long, once it is under way.

Pure, but for `survey`, which looks at the files of this machine. Nothing is asked of a network.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from promptseg.errors import PromptsegError
from promptseg.text import counted, human_size, listed

if TYPE_CHECKING:
    from promptseg.registry.entries import Registry
    from promptseg.specs import Cell, DatasetSpec, ModelSpec

_SHOWN_NAMES = 4
_ENOUGH_SECONDS = 3.0  # of work, until its rate says something
_LONG_SECONDS = 60.0  # what is over sooner needs no estimate


@dataclass(frozen=True)
class Download:
    """A model or data set that the run will download.

    Attributes:
        name: of the model or data set.
        size: in bytes, None if it is not known.
        folder: where it goes.
    """

    name: str
    size: int | None
    folder: Path


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run is going to do.

    Attributes:
        cells: of the run.
        cases: by task, how many will be scored; None where that is not known.
        downloads: files that are not here and can be had.
        absent: models and data sets that are not here and will not be downloaded.
        offline: whether the user forbade downloads.
        free: bytes by folder of a download.
    """

    cells: Collection[Cell]
    cases: Mapping[str, int | None]
    downloads: Sequence[Download] = ()
    absent: Sequence[str] = ()
    offline: bool = False
    free: Mapping[Path, int] = field(default_factory=dict)


def lines(plan: Plan) -> list[str]:
    """Return the plan in words: a line on the cells, and one for each thing that is not here."""
    return [*_cells(plan), *_downloads(plan), *_absent(plan), *warnings(plan)]


def warnings(plan: Plan) -> list[str]:
    """Return a line for each folder whose disk is too small for what will be downloaded into it."""
    needed: dict[Path, int] = dict.fromkeys(plan.free, 0)
    for download in plan.downloads:
        needed[download.folder] = needed.get(download.folder, 0) + (download.size or 0)
    return [
        f"warning: {human_size(needed[folder])} are to be downloaded into {folder}, whose disk has {human_size(free)} "
        "free: make room, or choose another folder (HF_HOME, PROMPTSEG_CACHE)"
        for folder, free in plan.free.items()
        if needed[folder] > free
    ]


def _cells(plan: Plan) -> Iterator[str]:
    if not plan.cells:
        yield "plan: no cells"
        return
    models, tasks, modes = ({getattr(cell, kind) for cell in plan.cells} for kind in ("model", "task", "mode"))
    product = f"{counted(len(models), 'model')}, {counted(len(tasks), 'task')}, {counted(len(modes), 'mode')}"
    known = [count for count in plan.cases.values() if count is not None]
    unknown = len(plan.cases) - len(known)
    yield f"plan: {counted(len(plan.cells), 'cell')} ({product}); cases: {_of_cases(known, unknown)}"


def _of_cases(known: Sequence[int], unknown: int) -> str:
    if not known:
        return "not known yet"
    return f"{sum(known):,}" + (f" and those of {counted(unknown, 'more task')}, not known yet" if unknown else "")


def _downloads(plan: Plan) -> Iterator[str]:
    if not plan.downloads:
        if not plan.absent and plan.cells:
            yield "to download: nothing"
        return
    sized = [download for download in plan.downloads if download.size is not None]
    unsized = [download.name for download in plan.downloads if download.size is None]
    size = human_size(sum(download.size or 0 for download in sized))
    parts = [f"{size} ({listed([download.name for download in sized], _SHOWN_NAMES)})"] if sized else []
    parts += [f"of unknown size: {listed(unsized, _SHOWN_NAMES)}"] if unsized else []
    yield f"to download: {'; '.join(parts)}"
    yield f"free disk: {', '.join(f'{human_size(free)} for {folder}' for folder, free in plan.free.items())}"


def _absent(plan: Plan) -> Iterator[str]:
    if plan.absent:
        why = "and HF_HUB_OFFLINE is set" if plan.offline else "to be downloaded by hand (promptseg show NAME)"
        yield f"not here, {why}: {listed(plan.absent, _SHOWN_NAMES)}"


# --- this machine -------------------------------------------------------------------------------------------


def survey(cells: Collection[Cell], registry: Registry, *, limit: int | None) -> Plan:
    """Return the plan of a run, after a look at which files are on this machine."""
    from promptseg.files import hub

    offline = hub.is_offline()
    downloads: list[Download] = []
    absent: list[str] = []
    seen: set[tuple[str, str, str]] = set()
    for spec in _specs(cells, registry):
        if _is_here(spec):
            continue
        host = spec.origin.host if spec.origin else "web"
        if offline or host not in ("hub", "npm"):
            absent.append(spec.name)
        else:
            downloads.append(Download(spec.name, _size(spec, seen), _folder(host)))
    tasks = sorted({cell.task for cell in cells})
    return Plan(
        cells=cells,
        cases={task: _n_cases(registry, task, limit) for task in tasks},
        downloads=downloads,
        absent=absent,
        offline=offline,
        free={folder: _free(folder) for folder in dict.fromkeys(d.folder for d in downloads)},
    )


def _specs(cells: Collection[Cell], registry: Registry) -> Iterator[ModelSpec | DatasetSpec]:
    """Yield the models of the cells and then their data sets, each once and sorted by name; not the broken ones."""
    for name in sorted({cell.model for cell in cells}):
        if (model := registry.models[name].spec) is not None:
            yield model
    for name in sorted({registry.tasks[cell.task].dataset.name for cell in cells}):
        if (dataset := registry.datasets[name].spec) is not None:
            yield dataset


def _is_here(spec: ModelSpec | DatasetSpec) -> bool:
    """Whether the files are on this machine; True where that cannot be answered, as the cells will say why."""
    from promptseg.files.models import model_is_here
    from promptseg.preparation.fetch import dataset_is_here
    from promptseg.specs import ModelSpec

    try:
        return model_is_here(spec) if isinstance(spec, ModelSpec) else dataset_is_here(spec)
    except (PromptsegError, OSError):
        return True


def _size(spec: ModelSpec | DatasetSpec, seen: set[tuple[str, str, str]]) -> int | None:
    """Return the pinned sizes of the files together, those in ``seen`` not again; None if one is not known."""
    from promptseg.specs import ModelSpec

    if not isinstance(spec, ModelSpec) or spec.origin is None or any(file.size is None for file in spec.weights):
        return None
    keys = {(spec.origin.host, spec.origin.repo, file.path): file.size or 0 for file in spec.weights}
    size = sum(size for key, size in keys.items() if key not in seen)
    seen.update(keys)
    return size


def _folder(host: str) -> Path:
    from promptseg.files import cache, hub

    return hub.cache_root() if host == "hub" else cache.cache_dir()


def _free(folder: Path) -> int:
    """Return the free bytes on the disk of a folder that need not exist."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return shutil.disk_usage(there).free


def _n_cases(registry: Registry, task: str, limit: int | None) -> int | None:
    """Return the published number of cases of a task, or the limit where that is smaller; None if not published."""
    spec = registry.tasks[task].task
    count = spec.n_masks if spec else None
    if count is None or limit is None:
        return count
    return min(count, limit)


# --- under way ----------------------------------------------------------------------------------------------


class Estimate:
    """How long a piece of work takes, said once, when its first items are through; nothing where it is short.

    Args:
        title: of the work.
        total: number of items, of which some may turn out to need none.
    """

    def __init__(self, title: str, total: int) -> None:
        self._title, self._total = title, total
        self._done = self._first_done = 0
        self._first_at: float | None = None
        self._is_said = False

    def after(self, count: int, now: float) -> str | None:
        """Return a line once ``count`` more items are done at ``now`` seconds; None before that, and after it.

        The first items are not counted, since what is slow once, such as loading, is in their time.
        """
        self._done += count
        if self._first_at is None:
            self._first_at, self._first_done = now, self._done
            return None
        seconds = now - self._first_at
        if self._is_said or seconds < _ENOUGH_SECONDS:
            return None
        self._is_said = True
        left = (self._total - self._done) * seconds / (self._done - self._first_done)
        if left < _LONG_SECONDS:
            return None
        return f"{self._title}: about {duration(left)} for the other {self._total - self._done:,} images"


def duration(seconds: float) -> str:
    """Return a time in words, as precise as an estimate is: ``3 min``, ``2 h 10 min``, ``3 days``."""
    minutes = max(1, round(seconds / 60))
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60 // 10 * 10} min"
    return counted(round(minutes / 60 / 24), "day")
