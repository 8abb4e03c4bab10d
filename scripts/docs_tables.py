"""The tables that README.md and docs/ take from the code; cog puts them there (`make docs-write`).

Only what promptseg itself registers is listed, whatever else is installed or configured where this runs.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import TypeVar

from tabulate import tabulate

from promptseg import cli, plugin, registry
from promptseg.describe import source
from promptseg.masks import SavedMask
from promptseg.options import SETTINGS, Setting
from promptseg.registry import Registered
from promptseg.results import Row
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
    flag = f"--seg-{setting.name} {setting.metavar}".strip()
    return f"`{flag}`", f"`seg_{setting.name.replace('-', '_')}`", setting.help


def marks() -> str:
    """Return the marks of a cell's test."""
    pairs = [line.split(": ", 1) for line in plugin._MARKERS]
    return table(("mark", "meaning"), [(f"`{mark}`", meaning) for mark, meaning in pairs])


def modes() -> str:
    """Return the prompt modes."""
    found = _ours(registry.build().modes)
    return table(("mode", "prompt", "what is given"), [(f"`{m.name}`", m.needs, m.description) for m in found])


def datasets() -> str:
    """Return the data sets."""
    found = _ours(registry.build().datasets)
    rows = [(f"`{d.name}`", d.modality, _place(d), d.licence, _link(d.url)) for d in found]
    return table(("data set", "modality", "where from", "licence", "more"), rows)


def tasks() -> str:
    """Return the tasks, data set by data set."""
    found = [(d, t) for d in _ours(registry.build().datasets) for t in d.tasks]
    rows = [(f"`{t.name}`", f"`{d.name}`", d.modality, t.target or "any label") for d, t in found]
    return table(("task", "data set", "modality", "target"), rows)


def models() -> str:
    """Return the models."""
    found = _ours(registry.build().models)
    rows = [(f"`{m.name}`", m.family, _prompts(m), _place(m), m.licence, _link(m.url)) for m in found]
    return table(("model", "family", "prompts", "where from", "licence", "more"), rows)


def _prompts(spec: ModelSpec) -> str:
    prompts = " and ".join(sorted(spec.accepts & {"points", "boxes"}, reverse=True))
    return f"{prompts}, its last mask" if "feedback" in spec.accepts else prompts


def _place(spec: ModelSpec | DatasetSpec) -> str:
    if isinstance(spec, ModelSpec) and spec.sees_target:
        return "here; for tests: it is shown the target"
    return "here, no download" if spec.embedded else source(spec.origin)


def _link(url: str) -> str:
    return f"[page]({url})" if url else ""


def columns() -> str:
    """Return the columns of a result file, as `promptseg.results.Row` describes them."""
    return _attributes(Row)


def mask_columns() -> str:
    """Return the columns of a file of masks, as `promptseg.masks.SavedMask` describes them."""
    return _attributes(SavedMask)


def _attributes(kind: type[Row] | type[SavedMask]) -> str:
    text = inspect.getdoc(kind) or ""
    meaning: dict[str, str] = {}
    for names, words in re.findall(r"^    ([\w, ]+): ((?:.+\n?)(?:        .+\n?)*)", text, re.MULTILINE):
        meaning |= dict.fromkeys(names.split(", "), " ".join(words.split()).replace("``", "`"))
    return table(("column", "meaning"), [(f"`{f.name}`", meaning[f.name]) for f in fields(kind)])


def commands() -> str:
    """Return the commands of `promptseg`."""
    found = [(c.name or getattr(c.callback, "__name__", ""), c.short_help or "") for c in cli.app.registered_commands]
    return table(("command", "what it does"), [(f"`promptseg {name}`", text) for name, text in found])
