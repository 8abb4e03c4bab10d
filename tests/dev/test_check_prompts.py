"""The checker of prompts finds what it is there for, and shares no code with the package."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp
from PIL import Image
from support.script_modules import load_script, run_script, script_path

from promptseg.datasets_registry.folder import load
from promptseg.evaluation import evaluate, jobs
from promptseg.models.reference import perfect
from promptseg.registry import modes
from promptseg.results.provenance import Provenance
from promptseg.results.rows import CellResult, ResultRow
from promptseg.results.store import ResultStore
from promptseg.segmenter import Mask, Runtime
from promptseg.specs import Cell, DatasetSpec, Origin, PromptMode, TaskSpec

SCRIPT = script_path("check_prompts")
MODES = (
    modes.POINT_LARGEST,
    modes.POINT_EACH,
    modes.BOX_LARGEST,
    modes.BOX_EACH,
    modes.BOX_ALL,
    modes.CLICKS_FIRST,
    modes.CLICKS_ORACLE,
    modes.NOC,
)


@pytest.fixture(scope="module")
def checker() -> Any:
    """Return the script as a module."""
    return load_script("check_prompts")


def test_it_shares_no_code(checker: Any) -> None:
    """It imports neither promptseg nor OpenCV."""
    code = f"import sys; sys.argv = ['x']; sys.path.insert(0, {str(SCRIPT.parent)!r}); import check_prompts"
    code += "; sys.exit(any(m.split('.')[0] in ('promptseg', 'cv2') for m in sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@settings(max_examples=100, deadline=None)
@given(target=hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=25)).filter(np.any))
def test_its_distance_is_opencvs(target: Mask) -> None:
    """The chamfer distance by its definition has the same farthest pixels as OpenCV's fixed-point code."""
    from check_prompts import farthest  # the fixture of the module loads it

    in_use = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    distance = cv2.distanceTransform(np.pad(target.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    cv2.ipp.setUseIPP(in_use)
    assert farthest(target) == {(int(x), int(y)) for y, x in np.argwhere(distance == distance.max())}


@dataclasses.dataclass
class Run:
    """A data set of three images and the results of one model on it."""

    root: Path
    store: ResultStore

    def result(self, mode: PromptMode) -> CellResult:
        """Evaluate the model that knows the target."""
        spec = DatasetSpec(
            name="blobs",
            modality="ct",
            load="promptseg.datasets_registry.folder:load",
            tasks=(TaskSpec(name="blobs", labels=(2,)),),
            licence="none",
            origin=Origin(host="local", repo=str(self.root)),
        )
        samples = load(spec, self.root)
        cell = Cell("perfect", "blobs", mode.name)
        job = jobs.CellJob(spec.tasks[0], mode)
        model = perfect.load(perfect.SPEC, {}, Runtime())
        evaluated = evaluate.evaluate(model, samples, [job], order=samples.ids(), seed=0, limit=None, batch_size=2)
        rows = jobs.sorted_rows(evaluated.cases[0])
        provenance = {"dataset": {"name": "blobs"}, "task": {"labels": [2]}}
        return CellResult(
            cell=cell, fingerprint="f" * 64, rows=rows, n_examined=4, provenance=Provenance.from_json(provenance)
        )

    def check(self) -> subprocess.CompletedProcess[str]:
        """Run the script, in this process."""
        return run_script("check_prompts", str(self.store.root), f"blobs={self.root}")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run over images of one, two and four objects, and one image without any."""
    drawn = {"one": [(2, 2, 9)], "two": [(1, 1, 4), (12, 9, 6)], "four": [(0, 0, 3), (8, 0, 5), (0, 8, 4), (14, 12, 2)]}
    for case_id, squares in {**drawn, "none": []}.items():
        labels = np.ones((18, 24), dtype=np.uint8)
        for x, y, side in squares:
            labels[y : y + side, x : x + side] = 2
        for kind, array in (("images", labels * 100), ("masks", labels)):
            (tmp_path / "data" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(tmp_path / "data" / kind / f"{case_id}.png")
    return Run(tmp_path / "data", ResultStore(tmp_path / "results"))


def test_what_the_package_writes_passes(run: Run) -> None:
    """Every mode on every image, with the counts of what was looked at."""
    for mode in MODES:
        run.store.save(run.result(mode))
    done = run.check()
    assert done.returncode == 0, done.stdout + done.stderr
    counts = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    assert counts["box_each"] == ["1", "3", "3", "6", "0", "6", "0"]
    assert counts["point_each"] == ["1", "3", "3", "3", "6", "0", "0"]
    assert counts["clicks_first"] == ["1", "3", "27", "27", "27", "0", "0"]
    assert counts["noc"] == ["1", "3", "60", "60", "60", "0", "0"]


def test_nothing_to_check_is_no_success(run: Run) -> None:
    """A wrong folder must not look like a pass."""
    assert run.check().returncode == 1


def _moved(by: float) -> Callable[[Any], Any]:
    def move(prompt: Any) -> Any:
        return {**prompt, "points_xy": [[x + by, y] for x, y in prompt["points_xy"]]}

    return move


def _box_changed(prompt: Any) -> Any:
    x0, y0, x1, y1 = prompt["box_xyxy"]
    return {**prompt, "box_xyxy": [x0, y0, x1 + 1, y1]}  # exclusive, as others have it


WRONG: list[tuple[PromptMode, Callable[[Any], Any], str]] = [
    (modes.POINT_LARGEST, _moved(1), "not farthest"),
    (modes.POINT_LARGEST, _moved(12), "outside the target"),
    (modes.POINT_LARGEST, _moved(0.5), "outside the target"),
    (modes.POINT_LARGEST, lambda p: {**p, "labels": [0]}, "not 1 foreground points"),
    (modes.POINT_EACH, lambda p: {**p, "points_xy": p["points_xy"][:1], "labels": [1]}, "foreground points"),
    (modes.POINT_EACH, lambda p: {**p, "points_xy": p["points_xy"][::-1]}, "not farthest"),
    (modes.BOX_LARGEST, _box_changed, "boxes [["),
    (modes.BOX_ALL, lambda p: {**p, "points_xy": [[3, 3]], "labels": [1]}, "points beside a box"),
    (modes.CLICKS_FIRST, _moved(1), "not farthest"),
    (modes.NOC, _moved(1), "not farthest"),
    (modes.NOC, lambda p: {**p, "points_xy": p["points_xy"] * 2, "labels": [1, 1]}, "a pixel was clicked twice"),
    (modes.CLICKS_FIRST, lambda p: {**p, "labels": [0]}, "not 1 foreground points"),
]


@pytest.mark.parametrize(("mode", "change", "message"), WRONG)
def test_a_wrong_prompt_is_found(run: Run, mode: PromptMode, change: Callable[[Any], Any], message: str) -> None:
    """Each rule of the protocol, broken on purpose, is a violation."""
    result = run.result(mode)
    rows = [dataclasses.replace(r, prompts=json.dumps([change(p) for p in json.loads(r.prompts)])) for r in result.rows]
    run.store.save(dataclasses.replace(result, rows=tuple(rows)))
    done = run.check()
    assert done.returncode == 1
    assert message in done.stdout


def _without_case(rows: tuple[ResultRow, ...]) -> list[ResultRow]:
    return [row for row in rows if row.case_id != "two"]


def _without_last_click(rows: tuple[ResultRow, ...]) -> list[ResultRow]:
    return [row for row in rows if row.click != 9]


def _extra_click(rows: tuple[ResultRow, ...]) -> list[ResultRow]:
    extra = json.dumps([{"points_xy": [[3, 3], [3, 3]], "labels": [1, 1], "box_xyxy": None}])
    return [dataclasses.replace(row, prompts=extra) if row.click == 5 else row for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_case, "two: not in both, masks and results"),
        (_without_last_click, "not 1 to 9"),
        (_extra_click, "click 5: an earlier click was changed"),
        (lambda rows: [dataclasses.replace(row, n_components=7) for row in rows], "n_components 7, not"),
        (lambda rows: [dataclasses.replace(row, error="gone") for row in rows], "failed: gone"),
        (lambda rows: [dataclasses.replace(row, iou_first=0.5) for row in rows], "1 points and 1 labels, not 2"),
    ],
)
def test_wrong_rows_are_found(
    run: Run, change: Callable[[tuple[ResultRow, ...]], list[ResultRow]], message: str
) -> None:
    """Cases that are missing, clicks that are too few or taken back, and clicks that end with an error left."""
    result = run.result(modes.CLICKS_FIRST)
    run.store.save(dataclasses.replace(result, rows=tuple(change(result.rows))))
    done = run.check()
    assert done.returncode == 1
    assert message in done.stdout
