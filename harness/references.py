"""``"module:function"`` references to objects, imported when they are needed."""

from __future__ import annotations

import importlib
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
