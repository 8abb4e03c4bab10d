"""How much goes to a model together: less when its memory runs out, and no question is lost with its batch."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")
_SIGNS = ("out of memory", "can't allocate memory", "failed to allocate", "cublas_status_alloc_failed")


@dataclass
class BatchSize:
    """How many questions a model is asked together.

    Attributes:
        size: as many as now.
        most: as many as ever; a batch that fails for want of memory lowers it for good.
    """

    size: int
    most: int

    def grow(self, n: int) -> None:
        """After ``n`` went well together, try twice as many if that was a full batch."""
        if n >= self.size:
            self.size = min(self.most, 2 * self.size)

    def shrink(self, n: int) -> None:
        """After ``n`` were too many, never ask as many again."""
        self.most = min(self.most, max(1, n // 2))
        self.size = min(self.size, self.most)


def answered(
    ask: Callable[[Sequence[Question]], Sequence[Answer]], questions: Sequence[Question], limit: BatchSize
) -> list[Answer | Exception]:
    """Return the answer to each question or, for those that fail also when asked alone, the error.

    A batch that fails is asked again in parts, so that only the culprit is lost; where memory ran out, ``limit`` is
    lowered and the device's unused memory is given back before.
    """
    try:
        answers: list[Answer | Exception] = [*ask(questions)]
    except Exception as error:  # noqa: BLE001 - models may raise anything
        problem = error.with_traceback(None)  # the frames hold on to what filled the memory
    else:
        limit.grow(len(questions))
        return answers
    if is_out_of_memory(problem):
        limit.shrink(len(questions))
        _give_back_memory()
    if len(questions) == 1:
        return [problem]
    half, found, rest = (len(questions) + 1) // 2, list[Answer | Exception](), questions
    while rest:
        size = min(half, limit.size)
        found += answered(ask, rest[:size], limit)
        rest = rest[size:]
    return found


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that a smaller batch may do: of Python, torch or onnxruntime."""
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "outofmemory" in text or any(sign in text for sign in _SIGNS)


def _give_back_memory() -> None:
    torch = sys.modules.get("torch")  # nothing to give back where nobody has imported it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
