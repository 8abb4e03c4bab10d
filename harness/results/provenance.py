"""Where a number comes from: the provenance of a result, and the versions, commit and date that go into it."""

from __future__ import annotations

import datetime
import functools
import json
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "pytest-promptseg",
    "torch",
    "numpy",
    "opencv-python-headless",
    "transformers",
    "timm",
    "onnxruntime",
    "scikit-image",
)


@dataclass(frozen=True)
class Facts:
    """Facts of one kind, as a JSON object; what was not recorded, or is of another type, is None."""

    json: Mapping[str, Any] = field(default_factory=dict)

    def text(self, key: str) -> str | None:
        """Return a text."""
        value = self.json.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """Return a whole number."""
        value = self.json.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, key: str) -> tuple[str, ...] | None:
        """Return a list, each item as text."""
        value = self.json.get(key)
        return tuple(map(str, value)) if isinstance(value, list | tuple) else None

    def table(self, key: str) -> Mapping[str, Any] | None:
        """Return names and values."""
        value = self.json.get(key)
        return value if isinstance(value, Mapping) else None


class SourceFacts(Facts):
    """What a result records of a model or a data set."""

    @property
    def name(self) -> str | None:
        """What the registry calls it."""
        return self.text("name")

    @property
    def load(self) -> str | None:
        """The function that loads it, ``module:function``."""
        return self.text("load")

    @property
    def code(self) -> str | None:
        """The sha256 of its source."""
        return self.text("code")

    @property
    def options(self) -> Mapping[str, Any] | None:
        """The settings of its loader."""
        return self.table("options")

    @property
    def licence(self) -> str | None:
        """Of its files."""
        return self.text("licence")

    @property
    def host(self) -> str | None:
        """Where its files come from: ``hub``, ``npm``, ``web``, ``local``."""
        return self.text("host")

    @property
    def repo(self) -> str | None:
        """Repository on the host."""
        return self.text("repo")

    @property
    def revision(self) -> str | None:
        """Of the repository."""
        return self.text("revision")


class ModelFacts(SourceFacts):
    """What a result records of its model."""

    @property
    def family(self) -> str | None:
        """Such as ``sam`` or ``floor``."""
        return self.text("family")

    @property
    def provider(self) -> str | None:
        """The distribution that registered it."""
        return self.text("provider")

    @property
    def sha256(self) -> Mapping[str, str] | None:
        """From the role of each of its files to the file's sha256."""
        found = self.table("sha256")
        return None if found is None else {role: str(value) for role, value in found.items()}

    @property
    def training_data(self) -> tuple[str, ...] | None:
        """Names of data sets it was trained on; None means unknown."""
        return self.texts("training_data")

    @property
    def sees_target(self) -> bool:
        """Whether it is shown the target: a ceiling, with no place among other models."""
        return bool(self.json.get("sees_target"))


class DatasetFacts(SourceFacts):
    """What a result records of its data set."""

    @property
    def modality(self) -> str | None:
        """Such as ``ct``."""
        return self.text("modality")

    @property
    def fingerprint(self) -> str | None:
        """Of all images, masks and ids."""
        return self.text("fingerprint")

    @property
    def study(self) -> str | None:
        """Its name in the study that the reference protocol comes from."""
        return self.text("study")

    @property
    def overlaps(self) -> tuple[str, ...]:
        """Names of data sets that it has images in common with."""
        return self.texts("overlaps") or ()

    @property
    def prepared(self) -> Mapping[str, Any] | None:
        """How it was prepared, None where it was not."""
        return self.table("prepared")


class TaskFacts(Facts):
    """What a result records of its task."""

    @property
    def labels(self) -> tuple[int, ...] | None:
        """Label ids that make up the target."""
        value = self.json.get("labels")
        if not isinstance(value, list | tuple) or not all(isinstance(label, int) for label in value):
            return None
        return tuple(value)


class ModeFacts(Facts):
    """What a result records of its prompt mode."""

    @property
    def steps(self) -> int | None:
        """Number of clicks; 0 for a static mode."""
        return self.number("steps")

    @property
    def guide(self) -> str | None:
        """The choice of mask that guides the next click."""
        return self.text("guide")

    @property
    def select(self) -> str | None:
        """The choice of mask that the mode says counts."""
        return self.text("select")

    @property
    def needs(self) -> str | None:
        """What it asks with, such as ``points``."""
        return self.text("needs")

    @property
    def grid(self) -> int | None:
        """Points a side of a mode that segments everything; 0 for others."""
        return self.number("grid")


@dataclass(frozen=True)
class Provenance(Facts):
    """Where a result comes from: what it depends on, and what else was recorded when it was made.

    Facts that this version does not know are kept: `as_json` returns all that `from_json` was given.
    """

    @classmethod
    def from_json(cls, json_object: Mapping[str, Any]) -> Provenance:
        """Return the provenance that a result's file has as JSON; tuples become lists, as in a file.

        Raises:
            ValueError: it is no JSON object.
        """
        plain = json.loads(json.dumps(json_object))
        if not isinstance(plain, dict):
            raise ValueError(f"the provenance {json_object!r} is no JSON object")
        return cls(plain)

    def as_json(self) -> dict[str, Any]:
        """Return all facts as a JSON object."""
        return dict(self.json)

    @property
    def protocol(self) -> tuple[str, ...] | None:
        """Name and version of the protocol."""
        return self.texts("protocol")

    @property
    def scoring(self) -> tuple[str, ...] | None:
        """The sha256 of the source of each module that turns predictions into scores."""
        return self.texts("scoring")

    @property
    def seed(self) -> int | None:
        """Of the prompts."""
        return self.number("seed")

    @property
    def sample_seed(self) -> int | None:
        """Of the order in which cases are taken."""
        return self.number("sample_seed")

    @property
    def device(self) -> str | None:
        """Kind of device, as ``cpu`` or ``cuda``."""
        return self.text("device")

    @property
    def device_name(self) -> str | None:
        """Name of the GPU, or the processor's architecture."""
        return self.text("device_name")

    @property
    def dtype(self) -> str | None:
        """Of the encoder."""
        return self.text("dtype")

    @property
    def fast(self) -> tuple[str, ...]:
        """The fast paths that were asked for; results made without any record none."""
        return self.texts("fast") or ()

    @property
    def n_images(self) -> int | None:
        """Number of images in the data set."""
        return self.number("n_images")

    @property
    def date(self) -> str | None:
        """Of the evaluation in UTC, as 2026-01-31."""
        return self.text("date")

    @property
    def git_commit(self) -> str | None:
        """Of the project, with ``+`` where files differed from it."""
        return self.text("git_commit")

    @property
    def versions(self) -> Mapping[str, str]:
        """From a package to its version."""
        return {package: str(value) for package, value in (self.table("versions") or {}).items()}

    @property
    def precision(self) -> Mapping[str, Any] | None:
        """How far a reduced dtype or a fast path is from float32; None where neither was asked for."""
        return self.table("precision")

    @property
    def engine(self) -> Mapping[str, Any] | None:
        """Where it ran: in one process, or on which workers of a cluster."""
        return self.table("engine")

    @property
    def model(self) -> ModelFacts:
        """Of the model."""
        return ModelFacts(self.table("model") or {})

    @property
    def dataset(self) -> DatasetFacts:
        """Of the data set."""
        return DatasetFacts(self.table("dataset") or {})

    @property
    def task(self) -> TaskFacts:
        """Of the task."""
        return TaskFacts(self.table("task") or {})

    @property
    def mode(self) -> ModeFacts:
        """Of the prompt mode."""
        return ModeFacts(self.table("mode") or {})


@functools.cache
def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can move a score, where installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit(folder: Path) -> str | None:
    """Return the commit checked out in ``folder``, with ``+`` where files differ from it; None without git."""
    try:
        commit = _git(folder, "rev-parse", "HEAD")
        return commit + ("+" if _git(folder, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *words: str) -> str:
    done = subprocess.run(  # noqa: S603 - a fixed command
        ["git", *words],  # noqa: S607 - git is looked up on PATH as everywhere
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
        timeout=10,
    )
    return done.stdout.strip()


def today() -> str:
    """Return the date in UTC, as in 2026-01-31."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()
