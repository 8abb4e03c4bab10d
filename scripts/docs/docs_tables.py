"""The tables that docs/ takes from the code; cog puts them there (`make docs-write`).

Only what promptseg itself registers is listed, whatever else is installed or configured where this runs.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from itertools import groupby, pairwise
from types import MappingProxyType
from typing import TypeVar

from tabulate import tabulate
from typer import Typer

import promptseg
from promptseg import plugin, registry
from promptseg.cli import main as cli
from promptseg.cli.describe import masks, place, source
from promptseg.leaderboard import paper_report
from promptseg.leaderboard.contamination import COLLECTIONS
from promptseg.leaderboard.figures.catalogue import KINDS
from promptseg.registry.entries import Registered
from promptseg.registry.modalities import OTHER_NAMES
from promptseg.results.masks import SavedMask
from promptseg.results.parquet import CELL_COLUMNS
from promptseg.results.rows import ResultRow
from promptseg.session.command_line import SETTINGS, Setting
from promptseg.specs import DatasetSpec, ModelSpec, PromptMode

OURS = "pytest-promptseg "
Spec = TypeVar("Spec", ModelSpec, DatasetSpec, PromptMode)


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    return tabulate([[_cell(text) for text in row] for row in rows], header, tablefmt="pipe", disable_numparse=True)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _ours(registered: Mapping[str, Registered[Spec]]) -> list[Spec]:
    return [entry.get() for entry in registered.values() if entry.provider.startswith(OURS)]


def options() -> str:
    """Return the command line options and their ini twins."""
    return table(("option", "ini value", "meaning"), [_option(setting) for setting in SETTINGS])


def _option(setting: Setting) -> tuple[str, str, str]:
    return f"`{setting.usage}`", f"`seg_{setting.name.replace('-', '_')}`", setting.help


def marks() -> str:
    """Return the marks of a cell's test."""
    pairs = [line.split(": ", 1) for line in plugin.MARKERS]
    return table(("mark", "meaning"), [(f"`{mark}`", meaning) for mark, meaning in pairs])


def modalities() -> str:
    """Return the sentence on the modalities of promptseg.toml."""
    names = ", ".join(f"`{name}`" for name in OTHER_NAMES)
    return (
        f"`modality` is one of {names}. Usual words and the codes of DICOM are understood: `CT`, `MR`, `US`, `X-ray`. "
        "Another word of lower-case letters, digits and `_` is a modality of your own."
    )


def modes() -> str:
    """Return the prompt modes."""
    found = _ours(registry.build().modes)
    return table(("mode", "prompt", "what is given"), [(f"`{m.name}`", m.needs, m.description) for m in found])


def tasks() -> str:
    """Return the tasks, data set by data set."""
    found = [(d, t) for d in _ours(registry.build().datasets) for t in d.tasks]
    rows = [(f"`{t.name}`", data_set_link(d), t.target, d.modality, masks(d, t), d.licence) for d, t in found]
    return table(("task", "data set", "target", "modality", "masks", "licence"), rows)


def data_set_link(spec: DatasetSpec) -> str:
    """Return the name of a data set, linked to its page in the same folder where it has one."""
    return f"[`{spec.name}`]({spec.name}.md)" if spec.layouts else f"`{spec.name}`"


def families() -> str:
    """Return the models, family by family."""
    found = sorted(_ours(registry.build().models), key=lambda m: (m.family, m.name))
    rows = [
        (family, ", ".join(f"`{m.name}`" for m in members)) for family, members in groupby(found, lambda m: m.family)
    ]
    return table(("family", "models"), rows)


def models_in_full() -> str:
    """Return the models with what each answers, how far its files are pinned, and what it was trained on."""
    found = _ours(registry.build().models)
    header = ("model", "family", "prompts", "candidates", "licence", "source", "pinned", "trained on")
    return table(header, [_in_full(m) for m in found])


def _in_full(spec: ModelSpec) -> tuple[str, ...]:
    trained_on = "unknown" if spec.training_data is None else ", ".join(spec.training_data) or "nothing"
    place = _place(spec).split("@")[0].removesuffix(" (not pinned yet)")
    gated = " (gated)" if spec.origin and spec.origin.gated else ""
    name, candidates = _link(f"`{spec.name}`", spec.url), _candidates(spec)
    return name, spec.family, _prompts(spec), candidates, spec.licence, place + gated, _pinned(spec), trained_on


def _candidates(spec: ModelSpec) -> str:
    """Return the number of masks that the adapters of the SAM families and our own models offer."""
    if spec.family in ("sam", "sam2", "sam3"):
        return "1" if spec.options.get("candidates") == "one" else "3"
    return "3" if spec.name == "region_growing" else "1"


def _pinned(spec: ModelSpec) -> str:
    if spec.origin is None:
        return ""
    if spec.origin.revision is None:
        return "no"
    unknown = [weight.path for weight in spec.weights if weight.sha256 is None]
    return f"commit; no sha256 of {', '.join(unknown)}" if unknown else "commit and sha256"


def collections() -> str:
    """Return the collections of training data and which data sets of the registry they hold."""
    rows = [(f"`{n}`", _listed(c.known), _listed(c.likely), c.source) for n, c in COLLECTIONS.items()]
    return table(("collection", "known to hold", "likely to hold", "source"), rows)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "-"


def _prompts(spec: ModelSpec) -> str:
    prompts = " and ".join(sorted(spec.accepts & {"points", "boxes"}, reverse=True))
    return f"{prompts}, its last mask" if "feedback" in spec.accepts else prompts


def _place(spec: ModelSpec | DatasetSpec) -> str:
    if isinstance(spec, ModelSpec) and spec.sees_target:
        return "here; for tests: it is shown the target"
    if spec.embedded:
        return "here, no download"
    return place(spec) if isinstance(spec, DatasetSpec) else source(spec.origin)


def _link(text: str, url: str) -> str:
    return f"[{text}]({url})" if url else text


def columns() -> str:
    """Return the columns of a result file; those of a row as `promptseg.results.rows.ResultRow` describes them."""
    return _attributes(ResultRow, dict.fromkeys(CELL_COLUMNS, "of the cell; the same in every row of a file."))


def mask_columns() -> str:
    """Return the columns of a file of masks, as `promptseg.results.masks.SavedMask` describes them."""
    return _attributes(SavedMask)


def _attributes(kind: type[ResultRow] | type[SavedMask], before: Mapping[str, str] = MappingProxyType({})) -> str:
    text = inspect.getdoc(kind) or ""
    meaning: dict[str, str] = {}
    for names, words in re.findall(r"^    ([\w, ]+): ((?:.+\n?)(?:        .+\n?)*)", text, re.MULTILINE):
        meaning |= dict.fromkeys(names.split(", "), " ".join(words.split()).replace("``", "`"))
    columns = {**before, **{field.name: meaning[field.name] for field in fields(kind)}}
    return table(("column", "meaning"), [(f"`{name}`", words) for name, words in columns.items()])


def public_names() -> str:
    """Return what `promptseg` exports, each with what it is."""
    return table(("name", "what it is"), [(f"`{name}`", _what(name)) for name in promptseg.__all__])


def _what(name: str) -> str:
    """Return the first line of the docstring of a public name; that of an alias stands below it in its module."""
    value = getattr(promptseg, name)
    text = inspect.getdoc(value)
    if not (inspect.isclass(value) or inspect.isroutine(value)):
        home = next(module for module, names in promptseg._HOME.items() if name in names)
        body = ast.parse(inspect.getsource(importlib.import_module(home))).body
        [below] = [after for alias, after in pairwise(body) if ast.unparse(alias).startswith(f"{name} = ")]
        text = ast.literal_eval(ast.unparse(below))
    return (text or "").partition("\n")[0].replace("``", "`")


def paper_tasks() -> str:
    """Return the paper's tasks under our names and its own."""
    return paper_report.tasks().rstrip()


def paper_disagreements() -> str:
    """Return where the paper's text, code and tables disagree."""
    return paper_report.disagreements().rstrip()


def figures() -> str:
    """Return the figures of `promptseg figures` and what each needs."""
    return table(("figure", "what it shows", "needs"), [(f"`{n}`", k.title, k.needs) for n, k in KINDS.items()])


def commands() -> str:
    """Return the commands of `promptseg`."""
    return table(("command", "what it does"), [(f"`promptseg {name}`", text) for name, text in _commands(cli.app)])


def _commands(app: Typer) -> list[tuple[str, str]]:
    """Return the commands of an app and, under their group's name, those of the groups in it."""
    own = [(str(c.name or getattr(c.callback, "__name__", "")), c.short_help or "") for c in app.registered_commands]
    groups = [
        (group.typer_instance.info.name, group.typer_instance)
        for group in app.registered_groups
        if group.typer_instance
    ]
    return own + [(f"{name} {command}", text) for name, group in groups for command, text in _commands(group)]
