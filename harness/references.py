"""``"module:function"`` references to objects, imported when they are needed."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from promptseg.errors import BrokenPluginError, PromptsegError


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
    """Return the sha256 of the source that stands behind a reference, so that changed code is another result.

    That is the module, with all modules of the package it is in; of promptseg itself, which is large, the module
    alone at the top level and the sub-package below. Code that it imports from elsewhere is not followed.

    Raises:
        BrokenPluginError: the module cannot be found.
    """
    module = reference.partition(":")[0]
    digest = hashlib.sha256()
    for path in _sources(module):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(module: str) -> list[Path]:
    try:
        spec = importlib.util.find_spec(module)
    except Exception as error:
        raise BrokenPluginError(f"module {module} cannot be found: {error!r}") from error
    if spec is None or spec.origin is None:
        raise BrokenPluginError(f"module {module} cannot be found.")
    origin = Path(spec.origin)
    parents = module.split(".")[:-1]
    if not parents or parents == ["promptseg"]:
        return [origin] if origin.is_file() else []
    return sorted(origin.parent.rglob("*.py"))
