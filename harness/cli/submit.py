"""The commands ``promptseg submit`` and ``promptseg verify``."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.cli.terminal import Config, existing, open_registry, print_plain, progress, say
from promptseg.text import counted

if TYPE_CHECKING:
    from promptseg.leaderboard.verify import Deviation, Verdict

_SHOWN = 5  # deviations of a cell
_HEADER = ("cell", "claimed", "decoded again", "deviating", "edits detected with 95 % confidence")

Root = Annotated[
    Path,
    typer.Argument(metavar="RESULTS", help="A results folder, or a submission.", show_default=False),
]


def submit(
    results: Root,
    output: Annotated[Path, typer.Option(metavar="DIR", help="Folder to write, which must not exist.")] = Path(
        "submission"
    ),
    push: Annotated[
        str | None, typer.Option(metavar="ORG/REPO", help="Also add it to this data set repository on the Hub.")
    ] = None,
) -> None:
    """Check results against the published schema, and prepare the files to contribute.

    The latest result of every cell is taken; each must be whole, without failed cases, and consistent. If one is not,
    the exit code is 1 and nothing is written.
    """
    from promptseg.leaderboard import submission

    refused: list[str] = []
    chosen = submission.found(existing(results), lambda _, error: refused.append(str(error)))
    document = submission.make(chosen, output, refused)
    say(f"submission ({counted(len(chosen), 'cell')}): {document.parent.absolute()}")
    if push is None:
        say(f"Contribute this folder, or upload it: `promptseg submit {results} --output OTHER --push ORG/REPO`.")
        return
    say(f"commit {submission.push(document.parent, push)} of {push}")


def verify(
    results: Root,
    cases: Annotated[int, typer.Option(min=1, metavar="N", help="Cases of each cell to decode again.")] = 20,
    seed: Annotated[
        int | None, typer.Option(min=0, metavar="N", help="Repeat the draw of an earlier run. Default: a new one.")
    ] = None,
    device: Annotated[str, typer.Option(help="Device as torch names it, or auto.")] = "auto",
    config: Config = None,
) -> None:
    """Decode a random sample of the claimed cases again, with the claimed weights, data and prompts, and compare.

    The exit code is 1 if a case deviates by more than another machine's floating point explains, if a cell cannot be
    checked on this machine or its file cannot be used, or if a submission's document disagrees with its files.
    """
    from promptseg.leaderboard import submission
    from promptseg.leaderboard import verify as verification
    from promptseg.runner.devices import resolve_device

    seed = secrets.randbelow(2**32) if seed is None else seed
    refused: list[str] = []
    claimed = submission.found(existing(results), lambda _, error: refused.append(str(error))).values()
    say(f"{counted(len(claimed), 'cell')}, {cases} cases of each, drawn with --seed {seed}")
    checked = verification.check(
        claimed, open_registry(config), n=cases, seed=seed, device=resolve_device(device), group=progress()
    )
    verdicts = sorted(checked, key=lambda verdict: verdict.cell)
    print_plain(_HEADER, map(_row, verdicts))
    altered = submission.altered(results)
    for line in [*refused, *altered, *(line for verdict in verdicts for line in _explained(verdict))]:
        say(line)
    if refused or altered or not all(verdict.holds for verdict in verdicts):
        raise typer.Exit(1)
    say("Every case that was decoded again is as claimed.")


def _row(verdict: Verdict) -> tuple[str, ...]:
    if verdict.refused:
        return verdict.cell.id, str(verdict.n_claimed), "-", "not checked", ""
    detected = f"of {100 * verdict.surely_below:.2g} % of the cases" if verdict.surely_below else "all"
    return verdict.cell.id, str(verdict.n_claimed), str(verdict.n_checked), str(len(verdict.deviations)), detected


def _explained(verdict: Verdict) -> Iterator[str]:
    """Yield why a cell could not be checked, or its worst cases."""
    if verdict.refused:
        yield f"{verdict.cell.id}: not checked: {verdict.refused}"
    yield from (f"{verdict.cell.id}: {_in_words(deviation)}" for deviation in verdict.deviations[:_SHOWN])
    if len(verdict.deviations) > _SHOWN:
        yield f"{verdict.cell.id}: and {len(verdict.deviations) - _SHOWN} more"


def _in_words(deviation: Deviation) -> str:
    numbers = "" if deviation.claimed is None else f", claimed {deviation.claimed:.4f}, found {deviation.found:.4f}"
    return f"case {deviation.case_id!r}: {deviation.reason}{numbers}"
