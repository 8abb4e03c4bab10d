"""The command ``promptseg``: what is registered, files, the machine, the leaderboard, the paper's numbers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from promptseg.cli import data, figures, gates, submit
from promptseg.cli import report as report_cli
from promptseg.cli.terminal import (
    RESULTS,
    Config,
    Results,
    complain,
    existing,
    find_config,
    open_registry,
    print_plain,
    progress,
    say,
)
from promptseg.errors import BrokenPluginError, ConfigError, PromptsegError, UnknownNameError
from promptseg.text import counted, printable

if TYPE_CHECKING:
    from promptseg.cli.describe import Listing
    from promptseg.files.pulled import Pulled
    from promptseg.registry.entries import Registry
    from promptseg.specs import DatasetSpec, ModelSpec
    from promptseg.testing import Report

_WRONG_USAGE = 2


class _Commands(TyperGroup):
    """Turn every error that promptseg raises on purpose, and those of the disk, into one message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PromptsegError as error:
            complain(f"Error: {error}")
            raise typer.Exit(_WRONG_USAGE if isinstance(error, UnknownNameError) else 1) from error
        except BrokenPipeError:  # whoever reads the pipe stopped reading
            raise
        except OSError as error:
            complain(f"Error: {error}")
            raise typer.Exit(1) from error


app = typer.Typer(
    name="promptseg",
    cls=_Commands,
    help="Promptable segmentation models on medical images. The evaluation itself is run by pytest: "
    "`pytest --pyargs promptseg.benchmark`; these commands do everything around it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """What can be listed."""

    MODELS = "models"
    DATASETS = "datasets"
    TASKS = "tasks"
    MODES = "modes"


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it so
    if wanted:
        from importlib.metadata import version

        say(f"promptseg {version('pytest-promptseg')}")
        raise typer.Exit


app.add_typer(data.app)
app.add_typer(gates.app)


@app.callback()
def _main(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


# --- list and show ------------------------------------------------------------------------------------------


@app.command("list", short_help="List models, data sets, tasks or prompt modes.")
def list_(
    kind: Annotated[Kind, typer.Argument(help="What to list.", show_default=False)],
    config: Config = None,
) -> None:
    """List what is registered: licence, size, where it comes from, and whether it is on this machine already."""
    from promptseg.cli import describe

    tables = {
        Kind.MODELS: describe.models,
        Kind.DATASETS: describe.datasets,
        Kind.TASKS: describe.tasks,
        Kind.MODES: describe.modes,
    }
    _print_listing(tables[kind](open_registry(config)))


def _print_listing(listing: Listing) -> None:
    if sys.stdout.isatty():
        _print_rich(listing.header, listing.rows)
    else:
        print_plain(listing.header, listing.rows)
    if listing.broken:
        say("\nCannot be used:")
        for name, problem in listing.broken:
            say(f"  {name}: {problem}")


def _print_rich(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for position, title in enumerate(header):
        table.add_column(title, overflow="fold", no_wrap=position == 0)  # so that names can be copied
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    Console().print(table)


@app.command(short_help="Show everything about a name.")
def show(
    name: Annotated[str, typer.Argument(help="A model, data set, task or prompt mode.", show_default=False)],
    config: Config = None,
) -> None:
    """Show everything that is registered under a name."""
    from promptseg.cli import describe

    for position, (kind, title, values) in enumerate(describe.find(open_registry(config), name)):
        say(f"{'' if position == 0 else chr(10)}{kind} {title}")
        width = max(map(len, values)) + 2
        for key, value in values.items():
            say(f"  {key:<{width}}{value}")


# --- pull ---------------------------------------------------------------------------------------------------


@app.command(short_help="Download the files of a model or data set.")
def pull(
    name: Annotated[str, typer.Argument(help="A model, a data set, or a task of one.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="Take the files from this folder or file instead of downloading."),
    ] = None,
    config: Config = None,
) -> None:
    """Download the files of a model or data set: checked, and kept in the cache for offline runs."""
    from promptseg.files import models as model_files
    from promptseg.preparation import fetch

    model, dataset = _pullable(open_registry(config), name)
    if model and dataset and source:
        raise ConfigError(f"{name!r} is a model and a data set: --from cannot serve both. Rename one of them.")
    if model:
        _print_pulled(model_files.pull_model(model, source))
    if dataset:
        _print_pulled(fetch.pull_dataset(dataset, source, progress()))


def _pullable(registry: Registry, name: str) -> tuple[ModelSpec | None, DatasetSpec | None]:
    """Return the model and the data set of a name; a task stands for its data set."""
    model = registry.model(name) if name in registry.models else None
    if name in registry.datasets:
        return model, registry.dataset(name)
    if name in registry.tasks:
        return model, registry.task(name)[0]
    if model is None:
        known = {*registry.models, *registry.datasets, *registry.tasks}
        raise UnknownNameError("model, data set or task", name, known)
    return model, None


def _print_pulled(pulled: Pulled) -> None:
    from promptseg.text import human_size

    if not pulled.files:
        say(f"{pulled.name} needs no files, or reads them where they are: nothing to download.")
        return
    revision = f"revision {pulled.revision}" if pulled.revision else "revision unknown (files supplied by hand)"
    say(f"{pulled.name}: {counted(len(pulled.files), 'file')}, {human_size(pulled.size)}, {revision}")
    for path, local in pulled.files.items():
        say(f"  {path}\n    sha256 {pulled.sha256[path]}\n    {local}")
    for line in pulled.to_pin:
        say(f"not pinned yet, put into the spec: {line}")
    for unit, problem in sorted(pulled.failed.items()):
        say(f"could not be read: {unit}: {problem}")
    if pulled.failed:
        raise typer.Exit(1)


# --- doctor -------------------------------------------------------------------------------------------------


@app.command(short_help="Say what this machine can run.")
def doctor(config: Config = None) -> None:
    """Say what this machine can run and what to do about the rest.

    The exit code is 1 if something keeps the embedded evaluation from running.
    """
    from promptseg.cli.doctor import examine

    config = config or find_config(Path.cwd())
    problems = 0
    for finding in examine(config, config.parent if config else Path.cwd()):
        say(f"{finding.level:<8} {finding.topic}: {finding.found}")
        if finding.advice:
            say(f"{'':<8} -> {finding.advice}")
        problems += finding.level == "problem"
    say()
    say(f"{problems} to solve before an evaluation can run." if problems else "The embedded evaluation can run.")
    raise typer.Exit(1 if problems else 0)


# --- leaderboard --------------------------------------------------------------------------------------------


@app.command(short_help="Rebuild the leaderboard from results.")
def leaderboard(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="RESULTS",
            help="Folders with results; several are merged. Default: leaderboard/results.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Path, typer.Option(metavar="PATH", help="Markdown file to write.")] = Path(
        "leaderboard/LEADERBOARD.md"
    ),
    results: Annotated[Path | None, typer.Option(hidden=True, help="A further folder, as in 0.1.0.")] = None,
    config: Config = None,
) -> None:
    """Rebuild the leaderboard from the results on disk; every run of pytest does this at its end.

    Results that the installed code would not reproduce are marked as out of date. A cell that several folders have is
    shown once: the board says which result was taken, and why; conflicts are printed here too. A file that cannot be
    used is left out, and named on the board and here; the exit code is 1 if none can be used.
    """
    from promptseg.leaderboard.board import write_leaderboard
    from promptseg.results.store import result_files

    named = [existing(folder) for folder in [*(folders or []), *([results] if results else [])] or [RESULTS]]
    for folder in named:
        result_files(folder)
    board = write_leaderboard(named, output, open_registry(config))
    for line in board.unreadable:
        complain(f"left out: {line}")
    for line in board.conflicts:
        complain(f"conflict: {line}")
    say(f"leaderboard ({counted(len(board.entries), 'cell')}): {output.absolute()}")
    if board.unreadable and not board.entries:
        raise typer.Exit(1)


@app.command(short_help="Compare results with the paper's tables.")
def paper(
    results: Results = RESULTS,
    output: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Markdown file to write; default: it is printed.")
    ] = None,
) -> None:
    """Compare the results on disk with those of the paper: measured, published and difference, as Markdown."""
    from promptseg.leaderboard.board import paper_comparison, write_paper_comparison

    if output is None:
        say(paper_comparison(existing(results), complain).rstrip())
        return
    write_paper_comparison(existing(results), output, complain)
    say(f"comparison with the paper: {output.absolute()}")


app.command("compare", short_help="Compare two runs case by case; exit code 1 if one got worse.")(gates.compare)
app.command("submit", short_help="Check results and prepare the files to contribute.")(submit.submit)
app.command("verify", short_help="Decode a sample of claimed cases again; exit code 1 if one deviates.")(submit.verify)
app.command(short_help="Draw the paper's figures of results.")(figures.figures)
app.command("report", short_help="Write a static site of results, to look at cases.")(report_cli.report)


# --- validate -----------------------------------------------------------------------------------------------


@app.command(short_help="Check that a model keeps the contract.")
def validate(
    model: Annotated[str, typer.Option(metavar="NAME", help="The model to check.", show_default=False)],
    device: Annotated[str, typer.Option(help="Device as torch names it, or auto.")] = "auto",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    config: Config = None,
) -> None:
    """Check on synthetic shapes that a model keeps the contract: shapes, coordinates, batches, prompts.

    The exit code is 1 if a check fails.
    """
    spec = open_registry(config).model(model)
    typer.echo(
        f"Loading {model} and running it on synthetic shapes: seconds, or minutes for a large model on a CPU.", err=True
    )
    report, notices = _checked(spec, device, dtype)
    for check in report.checks:
        say(f"{'ok' if check.passed else 'FAILED':<6} {check.name}{': ' + check.message if check.message else ''}")
    say()
    for notice in notices:
        say(f"note: {notice}")
    if not report.passed:
        say(f"{report.model}: {len(report.failures)} of {len(report.checks)} checks failed.")
        raise typer.Exit(1)
    say(f"{report.model} conforms: {len(report.checks)} checks passed.")


def _checked(spec: ModelSpec, device: str, dtype: str) -> tuple[Report, list[str]]:
    """Load and check a model, and call it, as an evaluation would; return also what should be read about it.

    Whatever a plugin raises is reported with the model's name, and it cannot end this process.
    """
    from promptseg.files import models as model_files
    from promptseg.runner import guarded
    from promptseg.runner.devices import resolve_device
    from promptseg.runner.options import DTYPES
    from promptseg.runner.plugin_calls import PluginCalls
    from promptseg.segmenter import Runtime
    from promptseg.testing import check_model

    if dtype not in DTYPES:
        raise typer.BadParameter(f"must be one of {', '.join(DTYPES)}, not {dtype!r}.", param_hint="--dtype")
    files = model_files.fetch_model(spec)
    runtime = Runtime(device=resolve_device(device), dtype=dtype)
    notices: list[str] = []
    calls = PluginCalls(seed=0, notify=notices.append)
    with calls.running():
        try:
            model = guarded.load(spec, files, runtime, calls)
        except PromptsegError:
            raise
        except Exception as error:
            raise BrokenPluginError(f"model {spec.name}: {spec.load} raised {type(error).__name__}: {error}") from error
        return check_model(model), notices
