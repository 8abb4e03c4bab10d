"""What `promptseg pull` stores and reports, for models and data sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from promptseg.errors import ConfigError, UnavailableError
from promptseg.files import hub, npm
from promptseg.files.revisions import known_revision, origin_of, repo_of
from promptseg.specs import DatasetSpec, ModelSpec, Origin


@dataclass(frozen=True)
class Pulled:
    """The files that a pull stored, or that were stored already.

    Attributes:
        name: of the model or data set.
        files: path inside the origin to local path.
        sha256: path inside the origin to 64 hex digits; empty for a data set in a user's own folder.
        revision: commit or version that the files are known to come from, None if it is unknown.
        to_pin: a line for each thing that the spec does not pin yet, for example ``revision 1f0c... of org/name``.
        failed: file to the reason why it could not be read when the data set was prepared.
    """

    name: str
    files: Mapping[str, Path] = field(default_factory=dict)
    sha256: Mapping[str, str] = field(default_factory=dict)
    revision: str | None = None
    to_pin: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """All files together, in bytes."""
        return sum(path.stat().st_size for path in self.files.values())


def forget_failure(spec: ModelSpec | DatasetSpec) -> None:
    """Make the next download try the network again: a person asked for this one."""
    if origin_of(spec).host == "npm":
        npm.forget_failure(origin_of(spec).repo, known_revision(spec))
    hub.forget_failure(repo_of(spec))


def source_to_copy(name: str, origin: Origin, source: Path) -> Path:
    """Return ``source`` after checking that it exists and that the files of ``origin`` can be copied from it."""
    if origin.host == "local":
        raise ConfigError(
            f"{name} reads its files from {origin.repo}; there is nothing to pull. To use {source} instead, change "
            "the path in promptseg.toml."
        )
    if not source.exists():
        raise UnavailableError(f"{name}: {source} does not exist; give --from a folder or a file that does.")
    return source
