"""Write docs/data-sets/: a page for each data set that is prepared, from its spec and the text of its module.

``--check`` writes nothing and fails where a page is missing, out of step or left over.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from docs_tables import OURS, data_set_link, table, tasks

from promptseg import registry
from promptseg.cli.describe import masks, named, place, status
from promptseg.registry.entries import GROUPS
from promptseg.specs import DatasetSpec

_INDEX = """# Tasks and data sets

`promptseg list datasets` says which of these are on this machine. A data set on the Hub is downloaded and prepared by
the first test that needs it; for any other, the message of the skipped test says where to get it and which command
takes the files. [Preparing data sets](../preparing-data.md) has the details. The copies on the Hub are not ours;
where no commit is pinned yet, the first pull prints the one to pin.

## Tasks

A task is one object in a data set. `masks` is the number of images with an object that the study (Mazurowski et al.
2023) reports; for the phantoms, the number of images.

{tasks}

The phantoms and `icbm152` need neither download nor preparation: the phantoms are drawn, and `icbm152` are slices of
an averaged brain that the package nilearn brings along.

## Data sets that are prepared

{data_sets}

A data set that is not in the study is the closest substitute for one that is hard to get; its scores are its own, and
never stand for the study's.

`make docs-write` writes this folder from the specs in `datasets_registry/`.
"""
FOLDER = Path(__file__).resolve().parents[2] / "docs" / "data-sets"


def pages() -> dict[str, str]:
    """Return file name to text."""
    found = [
        spec
        for entry in registry.build().datasets.values()
        if entry.provider.startswith(OURS) and (spec := entry.get()).layouts
    ]
    return {"README.md": _index(found), **{f"{spec.name}.md": _page(spec) for spec in found}}


def _index(specs: Sequence[DatasetSpec]) -> str:
    header = ("data set", "in the study", "modality", "masks in the study", "status", "source")
    rows = [
        (data_set_link(spec), spec.study or "no", spec.modality, masks(spec), status(spec), place(spec))
        for spec in sorted(specs, key=lambda spec: (not spec.study, spec.name))
    ]
    return _INDEX.format(tasks=tasks(), data_sets=table(header, rows))


def _page(spec: DatasetSpec) -> str:
    title, *text = _text(spec.name)
    parts = [f"# {spec.name}", title, *text, _facts(spec), "## Tasks", _tasks(spec), "## Getting it", *_getting(spec)]
    if spec.faults:
        parts += ["## Known faults", "\n".join(f"- {fault}" for fault in spec.faults)]
    return "\n\n".join([*parts, "## Citation", spec.citation]) + "\n"


def _text(name: str) -> list[str]:
    """Return the paragraphs of the module that a data set is registered in, without its name at the beginning."""
    entry = next(iter(entry_points(group=GROUPS["data set"], name=name)))
    text = inspect.getdoc(importlib.import_module(entry.module)) or ""
    first, *rest = text.replace("``", "`").split("\n\n")
    said = first.removeprefix(f"{name}: ")
    return [said[0].upper() + said[1:], *rest]


def _facts(spec: DatasetSpec) -> str:
    study = f"{spec.study}, {spec.n_masks} images with an object" if spec.study else "no, a substitute"
    rows = [
        ("in the study", study),
        ("modality", spec.modality),
        ("licence", spec.licence + (" (no commercial use)" if spec.non_commercial else "")),
        ("prepared form may be shared", "yes" if spec.shareable else "no"),
        ("status", status(spec)),
        ("home", spec.url),
    ]
    return table(("", ""), rows)


def _tasks(spec: DatasetSpec) -> str:
    rows = [(f"`{task.name}`", task.target, ", ".join(map(str, task.labels)), masks(spec, task)) for task in spec.tasks]
    found = table(("task", "object", "label ids", "masks in the study"), rows)
    other = f"\n\nLabel ids without a task: {', '.join(map(str, spec.other_labels))}." if spec.other_labels else ""
    return found + other


def _getting(spec: DatasetSpec) -> Iterator[str]:
    if spec.origin is not None:
        pin = (
            f"commit `{spec.origin.revision}`"
            if spec.origin.revision
            else "not pinned yet: the first pull prints the commit"
        )
        yield (
            f"From the Hub: [{spec.origin.repo}](https://huggingface.co/datasets/{spec.origin.repo}), {pin}. "
            f"{spec.origin.seen}"
        )
        yield _command(f"promptseg data prepare {spec.name}")
    if spec.original is not None:
        yield f"From its owners: <{spec.original.page}>. {spec.original.how}"
        if spec.original.archives:
            archives = [
                (f"`{one.name}`", f"`{one.sha256}`" if one.sha256 else "not known") for one in spec.original.archives
            ]
            yield table(("archive", "sha256"), archives)
        yield _command(f"promptseg data prepare {spec.name} --from PATH")
        yield "PATH is the archive, or the folder that holds it or its files."
    yield "What must be in it, below any folders:"
    yield "\n".join(f"- {layout.name}: {layout.expects}".replace("*", r"\*") for layout in spec.layouts)
    if spec.mirrors:
        yield "Elsewhere on the Hub, not used:"
        yield "\n".join(f"- {named(mirror)}: {mirror.seen}" for mirror in spec.mirrors)


def _command(line: str) -> str:
    return f"```text\n{line}\n```"


def out_of_step() -> list[str]:
    """Return the names of files that are missing, differ, or have no data set any more."""
    wanted = pages()
    there = {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.md")}
    return sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or check them."""
    wrong = out_of_step()
    if "--check" in arguments:
        print(
            f"docs/data-sets: out of step: {', '.join(wrong)}; run `make docs-write`."
            if wrong
            else "docs/data-sets: OK"
        )
        return 1 if wrong else 0
    FOLDER.mkdir(parents=True, exist_ok=True)
    texts = pages()
    for name in wrong:
        if name in texts:
            (FOLDER / name).write_text(texts[name], encoding="utf-8")
        else:
            (FOLDER / name).unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
