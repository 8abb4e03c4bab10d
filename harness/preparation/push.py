"""Upload a prepared data set with its data card to the Hub, if the licence lets others publish it."""

from __future__ import annotations

import json
from pathlib import Path

from promptseg.data.prepared import Record
from promptseg.errors import ConfigError
from promptseg.files import hub
from promptseg.specs import DatasetSpec

# Identifiers of the Hub for the licences that data sets come under.
_LICENCES = {
    "apache-2.0",
    "cc0-1.0",
    "cc-by-3.0",
    "cc-by-4.0",
    "cc-by-sa-3.0",
    "cc-by-sa-4.0",
    "cc-by-nc-4.0",
    "cc-by-nc-sa-4.0",
    "mit",
}


def check_licence(spec: DatasetSpec) -> None:
    """Raise `ConfigError` for a data set that may not be published."""
    if not spec.shareable:
        raise ConfigError(
            f"{spec.name} may not be uploaded: its licence ({spec.licence}) does not let others publish it, or does "
            f"not say so. Share the way to prepare it instead: `promptseg show {spec.name}`."
        )


def _check_whole(spec: DatasetSpec, record: Record) -> None:
    if record.failed:
        raise ConfigError(
            f"{spec.name} is not whole: {len(record.failed)} could not be read, first {next(iter(record.failed))}. "
            "Mend that and prepare it again before it is uploaded."
        )


def push(spec: DatasetSpec, record: Record, root: Path, repo: str) -> str:
    """Upload the canonical form in ``root`` with its card to ``repo`` (``org/name``), and return its commit.

    Raises:
        ConfigError: the licence forbids it, or the data set is not whole.
        UnavailableError: the Hub refuses or cannot be reached.
    """
    check_licence(spec)
    _check_whole(spec, record)
    target = hub.Repo(kind="dataset", id=repo, name=spec.name)
    files = {path: root / path for path in record.files}
    return hub.upload(
        target, {**files, "README.md": card(spec, record).encode()}, f"{spec.name}, prepared by promptseg"
    )


def card(spec: DatasetSpec, record: Record) -> str:
    """Return the data card in Markdown, with the header that the Hub reads."""
    tasks = "\n".join(
        f"- `{task.name}`: {task.target or 'object'} (ids {', '.join(map(str, task.labels)) or 'above 0'})"
        for task in spec.tasks
    )
    faults = "".join(f"- {fault}\n" for fault in spec.faults) or "None known.\n"
    return f"""---
{_header(spec)}---

# {spec.name}

{record.n_cases} images with label maps, modality {spec.modality}, in the canonical form of promptseg: columns
`case_id`, `subject_id`, `slice_index`, `image`, `mask` (label ids, 0 is background), `spacing_mm`, `labels`, `sha256`,
`metadata`.

Objects:

{tasks}

## Source and licence

Licence: {spec.licence}{" No commercial use." if spec.non_commercial else ""}

{spec.original.page if spec.original else spec.url}

{spec.citation}

## Preparation

Layout {record.layout!r}, preparation version {spec.version}, fingerprint `{record.fingerprint}`.

## Known faults

{faults}"""


def _header(spec: DatasetSpec) -> str:
    """Return YAML; JSON strings are YAML strings."""
    licence = spec.licence.lower().replace(" ", "-")
    if licence in _LICENCES:
        lines = [f"license: {licence}"]
    else:
        lines = ["license: other", f"license_name: {json.dumps(spec.licence)}"]
    lines += ["task_categories:", "- image-segmentation", f"tags: {json.dumps(['medical', spec.modality])}"]
    lines += ["configs:", "- config_name: default", "  data_files:", "  - split: test", "    path: data/test-*.parquet"]
    return "\n".join(lines) + "\n"
