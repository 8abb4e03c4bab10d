"""References ``"module:function"`` to objects, which are imported when they are needed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from promptseg.errors import BrokenPluginError, PromptsegError

_HASHED_AS_PACKAGES = ("promptseg.models", "promptseg.datasets_registry")


def resolve(reference: str) -> Any:
    """Import and return what ``"module:name"`` refers to.

    Raises:
        BrokenPluginError: the module does not import or has no such name. Errors of promptseg itself (a missing
            extra, for example) pass through.
    """
    module, _, name = reference.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except PromptsegError:
        raise
    except (Exception, SystemExit) as error:
        raise BrokenPluginError(f"{reference} cannot be imported: {error!r}") from error


@functools.cache
def code_hash(reference: str) -> str:
    """Return the sha256 of the source behind a reference, which results depend on.

    Raises:
        BrokenPluginError: the module cannot be found.
    """
    digest = hashlib.sha256()
    for path in source_files(reference):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def source_files(reference: str) -> list[Path]:
    """Return the source files that a result made by ``reference`` depends on, sorted.

    For a plugin: the package of the module, with everything below it. For promptseg itself: the module's file alone;
    for its models and data sets the module's package, and the modules that the packages above it share. Code that is
    imported from elsewhere is not followed.

    Raises:
        BrokenPluginError: the module cannot be found.
    """
    module = reference.partition(":")[0]
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:
        raise BrokenPluginError(f"module {module} cannot be found: {error!r}") from error
    if spec is None or spec.origin is None:
        raise BrokenPluginError(f"module {module} cannot be found.")
    origin = Path(spec.origin)
    package = module if spec.submodule_search_locations else module.rpartition(".")[0]
    parts = package.split(".")
    if not package or (parts[0] == "promptseg" and ".".join(parts[:2]) not in _HASHED_AS_PACKAGES):
        return [origin] if origin.is_file() else []
    own = sorted(origin.parent.rglob("*.py"))
    if parts[0] != "promptseg":
        return own
    shared = {path for folder in origin.parent.parents[: len(parts) - 2] for path in folder.glob("*.py")}
    return sorted({*own, *shared})
