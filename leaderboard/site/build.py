"""Write the site: pages from templates, data as scripts (a page opened from a folder may not fetch), pictures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptseg.errors import ResultsError, UnavailableError, package_needed
from promptseg.files.atomic import atomic_folder
from promptseg.leaderboard import aggregate
from promptseg.leaderboard.aggregate import Entry
from promptseg.leaderboard.board import read_results
from promptseg.leaderboard.case_views import CaseView, CellViews, Step, samples_of
from promptseg.leaderboard.site import content
from promptseg.leaderboard.site.content import Verdict, page_name
from promptseg.leaderboard.site.pictures import Gallery, Layer, choices, draw, select
from promptseg.progress import OpenBar, hidden
from promptseg.registry.entries import Registry
from promptseg.results import provenance
from promptseg.results.rows import CellResult
from promptseg.specs import SELECTS, Cell
from promptseg.verdicts import compare
from promptseg.verdicts.baselines import MAX_DROP, Baseline
from promptseg.verdicts.summary import pair
from promptseg.verdicts.thresholds import Threshold

if TYPE_CHECKING:
    from jinja2 import Environment

    from promptseg.samples import Samples
    from promptseg.verdicts.gates import BaselineVerdict

_HERE = Path(__file__).parent
_MARK = '<meta name="generator" content="promptseg report">'


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The inputs of a report.

    Attributes:
        results: the results folder.
        registry: the data sets whose images are shown.
        thresholds: what cells must reach.
        cases: how many cases of each cell are drawn.
        baseline: the run to compare with, None for no comparison.
    """

    results: Path
    registry: Registry
    thresholds: Mapping[Cell, Threshold]
    cases: int
    baseline: Baseline | None = None


@dataclass(frozen=True, kw_only=True)
class Built:
    """What was written.

    Attributes:
        cells: number of cells with a page.
        pictures: number of cases that are drawn with their image.
        size: bytes, all files together.
        problems: why something is not shown, a sentence each, with the number of cells concerned.
        unreadable: files that had to be left out, and why.
    """

    cells: int
    pictures: int
    size: int
    problems: Mapping[str, int]
    unreadable: Sequence[str] = ()


def build(plan: Plan, output: Path, progress: OpenBar = hidden) -> Built:
    """Write the site to ``output``, whole or not at all; an older one there is replaced.

    Args:
        plan: the inputs.
        output: the folder; one that holds anything but an older report is refused and left as it is.
        progress: opens a bar that counts the cells (`promptseg.progress`).

    Raises:
        ResultsError: there are no results, the runs cannot be compared, or the folder cannot be written.
        UnavailableError: jinja2 or pycocotools is missing.
    """
    _check(output)
    try:
        with atomic_folder(output, replace=True) as whole:
            built = _Site(plan, whole).write(progress)
    except OSError as error:
        raise ResultsError(f"The report {output} cannot be written: {error}. Name another --output.") from error
    return built


def _check(output: Path) -> None:
    index = output / "index.html"
    ours = index.is_file() and _MARK in index.read_text(encoding="utf-8", errors="replace")
    if not ours and output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise ResultsError(f"{output} exists and is not a report, so it stays as it is. Name another --output.")


def _environment() -> Environment:
    try:
        import pycocotools  # noqa: F401 - masks are encoded with it
        from jinja2 import Environment, FileSystemLoader, StrictUndefined
        from markupsafe import Markup  # which jinja2 brings
    except ImportError as error:
        raise UnavailableError(package_needed("`promptseg report`", str(error.name), "report")) from error
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    # Long names may break after an underscore; joining escapes them.
    environment.filters["breaking"] = lambda name: Markup("_<wbr>").join(name.split("_"))
    return environment


class _Site:
    """One report being written below ``root``."""

    def __init__(self, plan: Plan, root: Path) -> None:
        self._plan = plan
        self.root = root
        self._templates = _environment()
        self._samples: Callable[[CellResult], Samples] = samples_of(plan.registry)
        self._gallery = Gallery(root / "images")
        self._pictures = 0
        self._problems: dict[str, int] = {}
        results, self._unreadable = read_results(plan.results)
        self._board = aggregate.build(results)
        self._results = {result.cell: result for result in results}
        self._shown = {entry.cell for entry in self._board.entries}  # without models that are shown the target
        if not self._board.entries:
            raise ResultsError(
                f"{plan.results} holds no results that can be shown. "
                + (" ".join(f"{line}." for line in self._unreadable) or "Run pytest first, or name another folder.")
            )

    def write(self, progress: OpenBar) -> Built:
        for path in sorted((_HERE / "static").iterdir()):
            self._write(f"static/{path.name}", path.read_text(encoding="utf-8"))
        rows = []
        with progress("cells", len(self._board.entries)) as advance:
            for entry in self._board.entries:
                verdict = content.verdict(entry, self._results[entry.cell], self._plan.thresholds.get(entry.cell))
                rows.append(content.board_row(entry, verdict))
                self._cell(entry, verdict)
                advance(1)
        if self._plan.baseline is not None:
            self._comparison(self._plan.baseline, progress)
        self._data("board.js", content.columns(rows))
        self._page("index.html", "board.html", title="Results", unreadable=self._unreadable, date=provenance.today())
        return Built(
            cells=len(rows),
            pictures=self._pictures,
            size=sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file()),
            problems=self._problems,
            unreadable=self._unreadable,
        )

    def _page(self, path: str, template: str, **values: Any) -> None:
        up = "../" * path.count("/")
        text = self._templates.get_template(template).render(
            up=up, version=version("pytest-promptseg"), compared=self._plan.baseline is not None, **values
        )
        self._write(path, text)

    def _data(self, path: str, data: Any) -> None:
        """Write data as a script: ASCII, so that no text in it can end a line or a string of JavaScript."""
        self._write(path, f"promptseg.data = {json.dumps(data, allow_nan=False, separators=(',', ':'))};\n")

    def _write(self, path: str, text: str) -> None:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8", newline="\n")

    # --- cells ----------------------------------------------------------------------------------------------

    def _cell(self, entry: Entry, verdict: Verdict) -> None:
        result, choice = self._results[entry.cell], entry.summary.select
        cases = content.case_columns(result.rows, choice)
        scored = {i: v for i, v in zip(cases["id"], cases[choice], strict=True) if v is not None}
        drawn = select(scored, dict(zip(cases["id"], cases["size"], strict=True)), self._plan.cases)
        views = CellViews(result, self._samples, self._plan.results)
        layers = ((view, [choices(step) for step in view.steps]) for view in views.views(drawn))
        pictures = self._drawn(layers, views)
        self._browser(
            "cells",
            "cell.html",
            entry.cell,
            {"cases": cases, "pictures": pictures, "counts": choice, "layers": [c for c in SELECTS if c in cases]},
            views.problems,
            title=f"{entry.cell.model} on {entry.cell.task}, {entry.cell.mode}",
            entry=entry,
            verdict=verdict,
            facts=content.facts(entry),
            histogram=content.of_ious(list(scored.values())),
            correlation=content.size_correlation(cases, choice),
        )

    def _browser(
        self, folder: str, template: str, cell: Cell, data: Mapping[str, Any], problems: Sequence[str], **values: Any
    ) -> None:
        """Write a page with a browser of cases, and the data that it shows."""
        for problem in problems:
            self._problems[problem] = self._problems.get(problem, 0) + 1
        name = page_name(cell)
        self._data(f"{folder}/{name}.js", data)
        self._page(
            f"{folder}/{name}.html", template, name=name, problems=problems, drawn=len(data["pictures"]), **values
        )

    def _drawn(self, cases: Iterable[tuple[CaseView, list[list[Layer]]]], views: CellViews) -> list[dict[str, Any]]:
        """Return the drawings of some cases; ``cases`` has the masks that count in each step."""
        dataset = str(views.result.provenance.dataset.name)
        drawn = (draw(view, layers, self._gallery, dataset, views.problems) for view, layers in cases)
        drawings = [drawing for drawing in drawn if drawing is not None]
        self._pictures += sum(drawing["image"] is not None for drawing in drawings)
        return drawings

    # --- two runs -------------------------------------------------------------------------------------------

    def _comparison(self, baseline: Baseline, progress: OpenBar) -> None:
        plan = self._plan
        runs = compare.compare(baseline, Baseline(plan.results.as_posix(), plan.results), max_drop=MAX_DROP)
        shown = [relative for relative in runs.cells if relative.cell in self._shown]
        if not shown:
            raise ResultsError(f"{runs.before} and {runs.after} have no cell in common that can be shown.")
        with progress("comparison", len(shown)) as advance:
            for relative in shown:
                if relative.comparison is not None:
                    self._compared(baseline, relative)
                advance(1)
        self._data("compare.js", content.columns(content.compared_row(relative, runs) for relative in shown))
        self._page("compare.html", "compare.html", title=f"{runs.after} against {runs.before}", runs=runs)

    def _compared(self, baseline: Baseline, relative: BaselineVerdict) -> None:
        cell, choice = relative.cell, relative.settings.select
        before, after = baseline.result(cell), self._results[cell]
        if before is None:
            raise ResultsError(
                f"{baseline.reference} has no result of {cell.id} any more: it was removed while the report was made."
            )
        pairs = pair(before.rows, after.rows, choice)
        deltas, sizes = {p.case_id: p.delta for p in pairs}, {p.case_id: p.area_fraction for p in pairs}
        drawn = select(deltas, sizes, self._plan.cases)
        # A baseline is saved without its masks; those of the run that it was saved from may still be there.
        old = CellViews(before, self._samples, baseline.root, self._plan.results)
        new = CellViews(after, self._samples, self._plan.results)
        both = zip(old.views(drawn), new.views(drawn), strict=True)
        pictures = self._drawn(((now, _both(was, now, choice)) for was, now in both), new)
        cases = content.pair_columns(pairs)
        self._browser(
            "compare",
            "compare_cell.html",
            cell,
            {"cases": cases, "pictures": pictures, "counts": "delta", "layers": ["before", "after"]},
            [f"Before: {p}" for p in old.problems] + [f"After: {p}" for p in new.problems],
            title=f"{cell.model} on {cell.task}, {cell.mode}: before and after",
            relative=relative,
            found=relative.comparison,
            clicks=any(row.click for row in after.rows),
            histogram=content.of_differences(list(deltas.values())),
        )


def _both(was: CaseView, now: CaseView, choice: str) -> list[list[Layer]]:
    """Return the masks of both runs for each step of the later one; the earlier run may have fewer clicks."""
    layers = []
    for place, step in enumerate(now.steps):
        both = _named("after", step, choice)
        if place < len(was.steps):
            both = [*_named("before", was.steps[place], choice), *both]
        layers.append(both)
    return layers


def _named(name: str, step: Step, choice: str) -> list[Layer]:
    """Return the mask that counts in a step, under another name."""
    return [layer._replace(name=name) for layer in choices(step) if layer.name == choice]
