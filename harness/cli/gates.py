"""The commands ``promptseg baseline`` and ``promptseg compare``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptseg.cli.terminal import RESULTS, Results, complain, existing, print_plain, say
from promptseg.errors import ResultsError
from promptseg.text import counted
from promptseg.verdicts import baselines, comparable

if TYPE_CHECKING:
    from promptseg.results.provenance import Provenance
    from promptseg.results.rows import CellResult
    from promptseg.specs import Stratum

app = typer.Typer(
    name="baseline",
    help="Keep results as a baseline that later runs are compared with.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Folder = Annotated[Path, typer.Option("--folder", metavar="DIR", help="Folder of the baselines.")]
Run = Annotated[str, typer.Argument(help="A baseline, or a results folder.", show_default=False)]
_FACTS: Mapping[str, Callable[[Provenance], Any]] = {
    "protocol": lambda made: made.protocol,
    "seed": lambda made: made.seed,
    "dtype": lambda made: made.dtype,
    "device": lambda made: made.device,
    "date": lambda made: made.date,
}


@app.command(short_help="Keep the latest results under a name.")
def save(
    name: Annotated[str, typer.Argument(help="Name of the new baseline.", show_default=False)],
    results: Results = RESULTS,
    folder: Folder = baselines.FOLDER,
) -> None:
    """Copy the latest result of every cell. An existing baseline is never replaced: remove it first."""
    made = baselines.save(name, existing(results), folder)
    samples = [result.is_sample for result in made.read().results.values()]
    say(f"baseline {name} ({counted(len(samples), 'cell')}): {made.root.absolute()}")
    if any(samples):
        say(f"samples among them, not full scores: {sum(samples)}. A gate compares only the cases that they have.")


@app.command("list", short_help="List the baselines.")
def list_(folder: Folder = baselines.FOLDER) -> None:
    """List the baselines with the number of their cells and how they were evaluated."""
    from promptseg.results.store import OldResultsError

    rows = []
    for name in baselines.names(folder):
        try:
            results = _read(baselines.Baseline(name, folder / name))
        except OldResultsError as error:
            complain(str(error))
            continue
        rows.append([name, str(len(results)), *(_values(results, fact) for fact in _FACTS)])
    print_plain(("name", "cells", *_FACTS), rows)


def _read(baseline: baselines.Baseline) -> list[CellResult]:
    """Return the results of a baseline, and name the files that cannot be used."""
    found = baseline.read()
    for problem in found.problems.values():
        complain(f"left out: {problem}")
    return list(found.results.values())


def _values(results: list[CellResult], fact: str) -> str:
    """Return the different values of a fact among results, in words."""
    return ", ".join(sorted({comparable.shown(_FACTS[fact](result.provenance)) for result in results}))


@app.command(short_help="Show everything about a baseline.")
def show(name: Run, folder: Folder = baselines.FOLDER) -> None:
    """Show how a baseline was evaluated, its models and data sets, and the mean IoU of its cells."""
    baseline = baselines.locate(name, folder, Path())
    results = _read(baseline)
    say(f"baseline {name}: {baseline.root.absolute()}")
    for fact in _FACTS:
        say(f"  {fact:<10}{_values(results, fact)}")
    for line in sorted({line for result in results for line in _sources(result)}):
        say(f"  {line}")
    say()
    print_plain(("cell", "cases", "mean IoU"), map(_score, results))


def _sources(result: CellResult) -> Iterator[str]:
    """Yield what a result was made from: the model with its revision and weights, the data set with its fingerprint."""
    model, dataset = result.provenance.model, result.provenance.dataset
    revision = f", revision {comparable.shown(model.revision)}" if model.revision else ""
    sums = ", ".join(f"{role} {comparable.shown(digest)}" for role, digest in (model.sha256 or {}).items())
    yield f"model {result.cell.model}{revision}{f', weights {sums}' if sums else ''}"
    yield f"data set {dataset.name}, fingerprint {comparable.shown(dataset.fingerprint)}"


def _score(result: CellResult) -> list[str]:
    from promptseg.verdicts.summary import select_of, summarise

    summary = summarise(result.rows, select_of(result))
    n = f"{summary.n}{' (sample)' if result.is_sample else ''}"
    return [result.cell.id, n, f"{summary.mean_iou:.4f}"]


def compare(
    before: Run,
    after: Run,
    *,
    max_drop: Annotated[
        float, typer.Option(min=0, max=1, metavar="X", help="Mean drop of IoU that is tolerated.")
    ] = baselines.MAX_DROP,
    strata: Annotated[
        str | None, typer.Option(metavar="A,B", help="Also gate strata: cases by size and parts of the objects.")
    ] = None,
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Let AFTER lack cells of BEFORE, as a part of a run does."),
    ] = False,
    json_: Annotated[Path | None, typer.Option("--json", metavar="PATH", help="JSON file to write.")] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Markdown file to write; default: it is printed.")
    ] = None,
    folder: Folder = baselines.FOLDER,
) -> None:
    """Compare two runs case by case, as Markdown.

    The exit code is 1 if a cell of AFTER is worse than in BEFORE, cannot be compared with it, or is missing.
    """
    from promptseg.verdicts import compare as comparing

    kinds = _kinds(strata)
    old, new = (baselines.locate(reference, folder, Path()) for reference in (before, after))
    runs = comparing.compare(old, new, max_drop=max_drop, strata=kinds, allow_missing=allow_missing)
    text = comparing.render(runs)
    if json_ is not None:
        _write(json_, json.dumps(comparing.as_json(runs), indent=2, allow_nan=False) + "\n")
    if output is not None:
        _write(output, text)
        say(f"comparison: {output.absolute()}")
    else:
        say(text.rstrip())
    raise typer.Exit(1 if runs.fails else 0)


def _kinds(text: str | None) -> tuple[Stratum, ...]:
    from promptseg.session.command_line import strata_of

    try:
        return strata_of(text) if text is not None else ()
    except ValueError as error:
        raise typer.BadParameter(f"must be {error}, not {text!r}.", param_hint="--strata") from error


def _write(path: Path, text: str) -> None:
    from promptseg.files.atomic import write_text

    try:
        write_text(path, text)
    except OSError as error:
        raise ResultsError(f"The comparison {path} cannot be written: {error}. Name another file.") from error
