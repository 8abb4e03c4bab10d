"""Check that the prompts in result files obey the protocol, without importing promptseg.

    python scripts/checks/check_prompts.py RESULTS FOLDER [FOLDER ...]

RESULTS is a results folder; each FOLDER is a data set of images/ and masks/, given as NAME=FOLDER where the data set
has another name than its folder. Components come from scipy, boxes from numpy, and the distance from the
definition of the 5 x 5 chamfer distance, not from OpenCV. Prints what was checked and exits with 1 on any violation.

To have the prompts for every mask of a folder: name it in a promptseg.toml, and let models that cost nothing run.

    [datasets.us_breast]
    folder = "data/us_breast"
    modality = "ultrasound"

    pytest --pyargs promptseg.benchmark --seg-models box_fill,point_disc,perfect --seg-tasks us_breast --seg-results=out
    python scripts/checks/check_prompts.py out data/us_breast

``perfect`` shows that clicks end where no error is left. Predictions are not looked at, so the place of the second and
later clicks cannot be checked here, only their labels, their number and that none is taken back (or, in noc, repeated).
In noc it is a violation that a case ends with an error left: that happens only where every wrong pixel was clicked.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from PIL import Image
from scipy import ndimage

Mask = npt.NDArray[np.bool_]
Pixel = tuple[int, int]  # x, y
Row = dict[str, Any]

CLICKS = {"clicks_first": 9, "clicks_confident": 9, "clicks_oracle": 9, "noc": 20}
GUIDES = {"noc": "confident"} | {mode: mode.removeprefix("clicks_") for mode in CLICKS if mode != "noc"}
GRIDS = {"everything": 32, "everything_64": 64, "everything_128": 128}
MAX_PARTS = 3
TOUCHING = np.ones((3, 3))  # 8-connected
# Chamfer distances of a straight, a diagonal and a knight's step, in 1/65536 pixel, as OpenCV rounds 1, 1.4, 2.1969.
STRAIGHT, DIAGONAL, KNIGHT = 65536, 91750, 143976
# A pixel's chamfer distance is 0.982 to 1.020 times its Euclidean one: the farthest pixel is among these.
NEARLY_FARTHEST = 0.95


@dataclass(frozen=True, eq=False)
class Target:
    """What the protocol derives from one (H, W) bool target."""

    mask: Mask

    @functools.cached_property
    def all_parts(self) -> list[Mask]:
        """All 8-connected components, largest first, equal ones in raster order of their first pixel."""
        labels, count = ndimage.label(self.mask, structure=TOUCHING)
        flat = labels.ravel()
        order = sorted(range(1, count + 1), key=lambda i: (-np.count_nonzero(flat == i), int(np.argmax(flat == i))))
        return [labels == i for i in order]

    @property
    def parts(self) -> list[Mask]:
        """The components that get prompts."""
        return self.all_parts[:MAX_PARTS]

    @functools.cached_property
    def part_centres(self) -> list[set[Pixel]]:
        """The pixels allowed as centre of each part."""
        return [farthest(part) for part in self.parts]

    @functools.cached_property
    def centres(self) -> set[Pixel]:
        """The pixels allowed as centre of the whole target."""
        return farthest(self.mask)

    @functools.cached_property
    def exact_centre(self) -> Pixel:
        """The first pixel in raster order of those whose Euclidean distance is the largest: where noc clicks first."""
        distance = ndimage.distance_transform_edt(np.pad(self.mask, 1))[1:-1, 1:-1]
        y, x = np.argwhere(distance == distance.max())[0]
        return int(x), int(y)


def farthest(mask: Mask) -> set[Pixel]:
    """Return the pixels whose chamfer distance to the background or the image's edge is the largest."""
    padded = np.pad(mask, 1)
    euclidean = ndimage.distance_transform_edt(padded)
    pixels = np.argwhere(padded & (euclidean >= NEARLY_FARTHEST * euclidean.max()))
    border = np.argwhere(ndimage.binary_dilation(padded, TOUCHING) & ~padded)
    distances = np.concatenate([_chamfer(some, border) for some in _slices(pixels, 256)])
    rounded = (distances / STRAIGHT).astype(np.float32)  # as OpenCV returns it
    return {(int(x) - 1, int(y) - 1) for y, x in pixels[rounded == rounded.max()]}


def _slices(array: npt.NDArray[np.int64], size: int) -> Iterator[npt.NDArray[np.int64]]:
    return (array[i : i + size] for i in range(0, len(array), size))


def _chamfer(pixels: npt.NDArray[np.int64], border: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (N,) distance of each of (N, 2) pixels to the nearest of (M, 2) others."""
    steps = np.abs(pixels[:, None] - border[None])
    long, short = steps.max(axis=-1), steps.min(axis=-1)
    flat = KNIGHT * short + STRAIGHT * (long - 2 * short)
    steep = KNIGHT * (long - short) + DIAGONAL * (2 * short - long)
    return np.asarray(np.where(2 * short <= long, flat, steep).min(axis=1))


def tight_box(mask: Mask) -> list[int]:
    """Return the first and last column and row, both inclusive, as [x, y, x, y]."""
    ys, xs = np.nonzero(mask)
    return [xs.min(), ys.min(), xs.max(), ys.max()]


def point_problems(target: Target, prompts: Sequence[Row], centres: Sequence[set[Pixel]]) -> Iterator[str]:
    """Check that there is one prompt with one foreground point in each set of pixels."""
    if len(prompts) != 1:
        yield f"{len(prompts)} prompts, not 1"
        return
    points, labels = prompts[0]["points_xy"], prompts[0]["labels"]
    if prompts[0]["box_xyxy"] is not None:
        yield "a box among points"
    if len(points) != len(centres) or labels != [1] * len(centres):
        yield f"points {points} labelled {labels}, not {len(centres)} foreground points"
        return
    for (x, y), allowed in zip(points, centres, strict=True):
        if (x, y) not in allowed:
            inside = _at(target.mask, x, y)
            yield f"({x}, {y}) is {'not farthest' if inside else 'outside the target'}; allowed: {sorted(allowed)[:5]}"


def _at(mask: Mask, x: float, y: float) -> bool | None:
    """Return the mask at a pixel, None if it is not one."""
    height, width = mask.shape
    whole = float(x).is_integer() and float(y).is_integer() and 0 <= x < width and 0 <= y < height
    return bool(mask[int(y), int(x)]) if whole else None


def box_problems(prompts: Sequence[Row], masks: Sequence[Mask]) -> Iterator[str]:
    """Check that there is one prompt for each mask: the tight box round it, and no point."""
    if any(prompt["points_xy"] or prompt["labels"] for prompt in prompts):
        yield "points beside a box"
    found, expected = [prompt["box_xyxy"] for prompt in prompts], [tight_box(mask) for mask in masks]
    if found != expected:
        yield f"boxes {found}, not {expected}"


STATIC: dict[str, Callable[[Target, Sequence[Row]], Iterator[str]]] = {
    "point_largest": lambda target, prompts: point_problems(target, prompts, target.part_centres[:1]),
    "point_each": lambda target, prompts: point_problems(target, prompts, target.part_centres),
    "box_largest": lambda target, prompts: box_problems(prompts, target.parts[:1]),
    "box_each": lambda target, prompts: box_problems(prompts, target.parts),
    "box_all": lambda target, prompts: box_problems(prompts, [target.mask]),
}


def click_problems(target: Target, rows: Sequence[Row], mode: str) -> Iterator[str]:
    """Check the rows of one case of an iterative mode, sorted by click."""
    if [row["click"] for row in rows] != list(range(1, CLICKS[mode] + 1)):
        yield f"clicks {[row['click'] for row in rows]}, not 1 to {CLICKS[mode]}"
        return
    steps = [json.loads(row["prompts"]) for row in rows]
    if any(len(step) != 1 or step[0]["box_xyxy"] is not None for step in steps):
        yield "a click that is not one prompt of points"
        return
    yield from point_problems(target, steps[0], [{target.exact_centre} if mode == "noc" else target.centres])
    last = [tuple(xy) for xy in steps[-1][0]["points_xy"]]
    if mode == "noc" and len(set(last)) < len(last):
        yield f"a pixel was clicked twice: {last}"
    for k, (before, step) in enumerate(itertools.pairwise(steps), start=1):
        solved = rows[k - 1][f"iou_{GUIDES[mode]}"] == 1
        yield from (f"click {k + 1}: {p}" for p in _next_click_problems(target, before[0], step[0], solved=solved))


def _next_click_problems(target: Target, before: Row, now: Row, *, solved: bool) -> Iterator[str]:
    kept = len(before["points_xy"])
    if now["points_xy"][:kept] != before["points_xy"] or now["labels"][:kept] != before["labels"]:
        yield "an earlier click was changed"
    expected = kept if solved else kept + 1
    if not len(now["points_xy"]) == len(now["labels"]) == expected:
        yield f"{len(now['points_xy'])} points and {len(now['labels'])} labels, not {expected}"
    for (x, y), label in zip(now["points_xy"], now["labels"], strict=False):
        if _at(target.mask, x, y) != bool(label):
            yield f"({x}, {y}) is labelled {label}, the target there is {_at(target.mask, x, y)}"


class Masks:
    """The targets of one task: what its data set's masks folder says."""

    def __init__(self, folder: Path, labels: Sequence[int]) -> None:
        self._paths = {path.stem: path for path in sorted((folder / "masks").iterdir()) if path.name[0] != "."}
        self._labels = list(labels)
        self._targets: dict[str, Target] = {}

    def __getitem__(self, case_id: str) -> Target:
        if case_id not in self._targets:
            with Image.open(self._paths[case_id]) as image:
                ids = np.asarray(image)
            ids = ids if ids.ndim == 2 else ids[..., :3].max(axis=-1)
            if self._labels == [1] and set(np.unique(ids)) <= {0, 255}:
                ids = ids // 255  # a black and white mask
            self._targets[case_id] = Target(np.isin(ids, self._labels) if self._labels else ids > 0)
        return self._targets[case_id]

    def not_empty(self) -> set[str]:
        """Return the cases that belong to the task."""
        return {case_id for case_id in self._paths if self[case_id].mask.any()}


class Report:
    """Counts what was checked, by mode and by task, and keeps the violations."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        self.violations: list[str] = []

    def check(self, path: Path, folders: dict[str, Path], masks: dict[tuple[Any, ...], Masks]) -> dict[str, str]:
        """Check one file and return the prompts of each of its cases."""
        table = pq.read_table(path, partitioning=None)
        about = json.loads(table.schema.metadata[b"promptseg"])
        cell, provenance = about["cell"], about["provenance"]
        key = (provenance["dataset"]["name"], *provenance["task"]["labels"])
        if key not in masks:
            masks[key] = Masks(folders[key[0]], provenance["task"]["labels"])
        cases: dict[str, list[Row]] = defaultdict(list)
        for row in table.to_pylist():
            cases[row["case_id"]].append(row)
        count = Counter(files=1)
        missing = masks[key].not_empty() ^ set(cases)
        problems = [(case_id, "not in both, masks and results") for case_id in sorted(missing)]
        for case_id, rows in cases.items():
            problems += [(case_id, problem) for problem in case_problems(cell["mode"], masks[key][case_id], rows)]
            count += _numbers(rows)
        count["violations"] += len(problems)
        self.counts[cell["mode"], cell["task"]] += count
        self.violations += [f"{path}: {case_id}: {problem}" for case_id, problem in problems]
        return {case_id: rows[0]["prompts"] for case_id, rows in cases.items()}


def case_problems(mode: str, target: Target, rows: Sequence[Row]) -> Iterator[str]:
    """Check the rows of one case."""
    if any(row["error"] for row in rows):
        yield f"failed: {rows[0]['error']}"
        return
    if {row["n_components"] for row in rows} != {len(target.all_parts)}:
        yield f"n_components {rows[0]['n_components']}, not {len(target.all_parts)}"
    if {row["area_fraction"] for row in rows} != {target.mask.mean()}:
        yield f"area_fraction {rows[0]['area_fraction']}, not {target.mask.mean()}"
    if mode in CLICKS:
        yield from click_problems(target, sorted(rows, key=lambda row: row["click"]), mode)
    elif len(rows) != 1:
        yield f"{len(rows)} rows, not 1"
    elif mode in GRIDS:
        if json.loads(rows[0]["prompts"]) != [{"grid": GRIDS[mode]}]:
            yield f"prompts {rows[0]['prompts']}, not a grid of {GRIDS[mode]} points a side"
    else:
        yield from STATIC[mode](target, json.loads(rows[0]["prompts"]))


def _numbers(rows: Sequence[Row]) -> Counter[str]:
    prompts = [prompt for row in rows for prompt in json.loads(row["prompts"]) if "grid" not in prompt]
    points = sum(len(prompt["points_xy"]) for prompt in prompts)
    boxes = sum(prompt["box_xyxy"] is not None for prompt in prompts)
    return Counter(cases=1, rows=len(rows), prompts=len(prompts), points=points, boxes=boxes)


COLUMNS = ("files", "cases", "rows", "prompts", "points", "boxes", "violations")


def _print(report: Report, column: int, title: str) -> None:
    """Print the counts by mode (column 0) or by task (column 1)."""
    totals: dict[str, Counter[str]] = defaultdict(Counter)
    for key, count in report.counts.items():
        totals[key[column]].update(count)
        totals["(all)"].update(count)
    width = max(map(len, (*totals, title)))
    print(" ".join([title.ljust(width), *(name.rjust(10) for name in COLUMNS)]))
    for name, count in sorted(totals.items(), key=lambda item: (item[0] == "(all)", item[0])):
        print(" ".join([name.ljust(width), *(str(count[c]).rjust(10) for c in COLUMNS)]))
    print()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("results", type=Path, help="results folder")
    parser.add_argument("folders", nargs="+", help="FOLDER or NAME=FOLDER of images/ and masks/")
    return parser.parse_args()


def _folders(given: Sequence[str]) -> dict[str, Path]:
    pairs = [text.rpartition("=") for text in given]
    return {name or Path(folder).name: Path(folder) for name, _, folder in pairs}


def main() -> int:
    """Check every result whose data set was given."""
    arguments = _arguments()
    folders, masks, report = _folders(arguments.folders), {}, Report()  # type: ignore[var-annotated]
    static: dict[tuple[str, str], dict[str, dict[str, str]]] = defaultdict(dict)
    for path in sorted(arguments.results.glob("*/*/*.parquet")):
        model, task, mode = path.parent.parent.name, path.parent.name, path.stem
        first = report.check(path, folders, masks)
        if mode in STATIC:
            static[task, mode][model] = first
    for (task, mode), models in static.items():
        if len({json.dumps(prompts, sort_keys=True) for prompts in models.values()}) > 1:
            report.violations.append(f"{task}, {mode}: {' and '.join(models)} got different prompts")
    _print(report, 1, "task")
    _print(report, 0, "mode")
    print(f"{len(report.violations)} violations", *report.violations[:20], sep="\n")
    return 1 if report.violations or not report.counts else 0


if __name__ == "__main__":
    sys.exit(main())
