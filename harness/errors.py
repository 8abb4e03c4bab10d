"""All exceptions of promptseg.

PromptsegError
├── ConfigError          an option, an ini value or promptseg.toml cannot be used, or names files that are not there
├── RegistryError
│   ├── UnknownNameError     no plugin registered the name
│   └── BrokenPluginError    a registered plugin cannot be used: import, duplicate, wrong spec
├── UnavailableError     weights, data or an extra are missing: the cell is skipped (failed with --seg-require)
├── UnsupportedPromptError   a model does not take the prompts of a mode: the cell is skipped
├── IntegrityError       a file is not the one that was pinned, or a checkpoint's keys do not match
├── CaseError            one image or mask is unusable: reported by its case_id
├── ModelError           a model broke its contract: shapes, dtypes, NaN
│   └── NoAnswerError        a call of a model ended without an answer: by a time limit, or with what ends a process
├── PrecisionError       a reduced dtype or a fast path does not give the masks of float32: its cells fail
└── ResultsError         results cannot be read or written

Every message says what was asked for, what was found and what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from promptseg.text import did_you_mean, near


class PromptsegError(Exception):
    """Base of all errors that promptseg raises on purpose."""


class ConfigError(PromptsegError):
    """An option, an ini value or promptseg.toml cannot be used."""


class RegistryError(PromptsegError):
    """Base of the errors about registered models, data sets and prompt modes."""


class UnknownNameError(RegistryError):
    """No plugin registered the name that was asked for."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        hint = did_you_mean(near(name, names))
        super().__init__(f"Unknown {kind} {name!r}.{hint} Registered: {', '.join(names) or 'none'}.")


class BrokenPluginError(RegistryError):
    """A registered plugin cannot be used; raised when one of its cells runs, never at collection."""


class UnavailableError(PromptsegError):
    """Weights, data or an optional package are not on this machine and could not be downloaded.

    Args:
        message: complete in itself.
        name: the model or data set that is missing.
        why: the reason, in the same words for all that lack the same.
        remedy: what to do, with NAME for the name (`remedy_for`).
    """

    def __init__(self, message: str, *, name: str = "", why: str = "", remedy: str = "") -> None:
        super().__init__(message)
        self.name, self.why, self.remedy = name, why, remedy


def remedy_for(name: str, remedy: str) -> str:
    """Return a remedy in the same words for many, for one name: that takes the place of NAME."""
    return re.sub(r"\bNAME\b", lambda _: name, remedy)


class UnsupportedPromptError(PromptsegError):
    """A model does not take the kind of prompt that a mode gives; no other prompt takes its place."""


class IntegrityError(PromptsegError):
    """A file differs from the one that was pinned, or a checkpoint does not fit its architecture."""


class CaseError(PromptsegError):
    """One case is unusable.

    Args:
        case_id: the image's id in its data set.
        problem: what was found and what to do about it.
    """

    def __init__(self, case_id: str, problem: str) -> None:
        super().__init__(f"case {case_id!r}: {problem}")
        self.case_id = case_id
        self.problem = problem


def package_needed(what: str, package: str, extra: str) -> str:
    """Return the message for a missing package of an extra; ``what`` is the subject of the sentence."""
    return f"{what} needs the package {package}: pip install 'pytest-promptseg[{extra}]'"


class ModelError(PromptsegError):
    """A model broke the contract of `promptseg.Segmenter`."""


class NoAnswerError(ModelError):
    """A call of a model took longer than ``--seg-timeout``, or would have ended the process of the run."""


class PrecisionError(PromptsegError):
    """A reduced dtype or a fast path does not agree with float32 (`promptseg.runner.precision_guard`)."""


class ResultsError(PromptsegError):
    """Results cannot be read or written."""
