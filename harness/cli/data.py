"""The commands ``promptseg data``: prepare, check, preview and push a data set."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptseg.cli import terminal
from promptseg.cli.terminal import Config
from promptseg.errors import ConfigError

if TYPE_CHECKING:
    from promptseg.data.prepared import Record
    from promptseg.specs import DatasetSpec

app = typer.Typer(
    name="data",
    help="Prepare, check, preview and push data sets.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Name = Annotated[str, typer.Argument(help="A data set, or a task of one.", show_default=False)]


def _dataset(name: str, config: Path | None) -> DatasetSpec:
    registry = terminal.open_registry(config)
    return (
        registry.task(name)[0] if name in registry.tasks and name not in registry.datasets else registry.dataset(name)
    )


def _with_layouts(name: str, config: Path | None) -> DatasetSpec:
    spec = _dataset(name, config)
    if not spec.layouts:
        raise ConfigError(f"{spec.name} is read from its files as they are: there is nothing to prepare.")
    return spec


# --- prepare ------------------------------------------------------------------------------------------------


@app.command(short_help="Write the canonical form of a data set.")
def prepare(
    name: Name,
    source: Annotated[
        Path | None,
        typer.Option("--from", metavar="PATH", help="The owners' archive, or a folder with it or with its files."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Put a copy here, for `datasets` and other programs.")
    ] = None,
    config: Config = None,
) -> None:
    """Read the files of a data set, from the Hub or from PATH, and write its canonical form into the cache.

    A run that was killed resumes where it ended. Files that cannot be read are named and do not stop the others; the
    exit code is then 1, and once they are mended the same command reads only these.
    """
    from promptseg.data import prepared
    from promptseg.preparation import fetch

    spec = _with_layouts(name, config)
    if out is not None:
        _check_empty(out)
    with _resumable(spec):
        if source is not None:
            record = fetch.prepare_dataset(spec, source, progress=terminal.progress())
        else:
            record = fetch.fetch_prepared(spec, terminal.progress())
    root = prepared.folder(spec)
    if out is not None:
        root = Path(shutil.copytree(root, out, dirs_exist_ok=True))
    _print_record(spec, record, root)
    raise typer.Exit(1 if record.failed else 0)


@contextlib.contextmanager
def _resumable(spec: DatasetSpec) -> Iterator[None]:
    """Print, when a person stops a preparation, that the same command resumes it."""
    try:
        yield
    except KeyboardInterrupt:
        terminal.complain(f"Stopped. The finished parts of {spec.name} are kept: the same command resumes from there.")
        raise


def _check_empty(out: Path) -> None:
    """Raise `ConfigError` if files would be mixed: before hours of work, not after them."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"--out {out} is not empty; give a folder that is, or one that does not exist yet.")


def _prepared(spec: DatasetSpec) -> Record:
    from promptseg.data import prepared

    record = prepared.find(spec)
    if record is None:
        raise ConfigError(
            f"{spec.name} is not prepared on this machine; run `promptseg data prepare {spec.name}` first."
        )
    return record


def _print_record(spec: DatasetSpec, record: Record, root: Path) -> None:
    from promptseg.files.revisions import revision_to_pin
    from promptseg.text import human_size

    terminal.say(f"{record.name}: {record.n_cases} images, {human_size(record.size)}, from {record.layout}")
    terminal.say(f"  fingerprint {record.fingerprint}")
    terminal.say(f"  {root}")
    if spec.n_masks not in (None, record.n_cases):
        terminal.say(f"the published count is {spec.n_masks}: compare with `promptseg data check {spec.name}`")
    for line in revision_to_pin(spec, record.revision):
        terminal.say(f"not pinned yet, put into the spec: {line}")
    for unit, problem in sorted(record.failed.items()):
        terminal.say(f"could not be read: {unit}: {problem}")
    if record.failed:
        terminal.say(f"{len(record.failed)} could not be read: mend them, then the same command reads only these.")


# --- check --------------------------------------------------------------------------------------------------


@app.command(short_help="Compare a data set with its spec and the published counts.")
def check(name: Name, config: Config = None) -> None:
    """Read every image and mask and compare counts, sizes and label ids with the spec and with the published count.

    The exit code is 1 if something is wrong; a count that differs from the published one is not.
    """
    from tabulate import tabulate

    from promptseg.preparation import fetch
    from promptseg.preparation.check import Finding, findings, look_at_all

    spec = _dataset(name, config)
    _, samples = fetch.open_samples(spec, terminal.progress())
    lines = findings(spec, look_at_all(spec, samples, terminal.progress()))
    terminal.say(tabulate(lines, headers=Finding._fields, tablefmt="plain", disable_numparse=True))
    raise typer.Exit(1 if any(line.verdict == "wrong" for line in lines) else 0)


# --- preview ------------------------------------------------------------------------------------------------


@app.command(short_help="Draw a contact sheet with contours.")
def preview(
    name: Name,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="PNG to write. Default: NAME.png in this folder.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, metavar="N", help="Number of images, evenly spread over all.")] = 24,
    config: Config = None,
) -> None:
    """Draw a sheet of images with the contours of their label maps: look at it before you believe a number."""
    from PIL import Image

    from promptseg.preparation import fetch
    from promptseg.preparation.preview import contact_sheet, spread

    spec = _dataset(name, config)
    _, samples = fetch.open_samples(spec, terminal.progress())
    path = out or Path(f"{spec.name}.png")
    chosen = spread(samples.ids(), count)
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {label: task.target for task in spec.tasks for label in task.labels or (1,)}
    Image.fromarray(contact_sheet(samples, chosen, names)).save(path, "PNG")
    terminal.say(f"{len(chosen)} of {len(samples.ids())} images: {path.absolute()}")


# --- push ---------------------------------------------------------------------------------------------------


@app.command(short_help="Upload the canonical form to the Hub.")
def push(
    name: Name,
    repo: Annotated[
        str, typer.Argument(metavar="ORG/REPO", help="Data set repository on the Hub.", show_default=False)
    ],
    config: Config = None,
) -> None:
    """Upload the canonical form with a data card, as one commit; refused if the licence does not allow it."""
    from promptseg.data import prepared
    from promptseg.preparation import push as pushing

    spec = _with_layouts(name, config)
    pushing.check_licence(spec)
    commit = pushing.push(spec, _prepared(spec), prepared.folder(spec), repo)
    terminal.say(f"{spec.name}: commit {commit} of {repo}")
