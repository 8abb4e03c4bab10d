"""A time limit for a model's calls, for ``--seg-timeout``.

Python cannot end a call that hangs. So calls are made in a daemon thread, which is abandoned at the time limit together
with the memory it holds: the process ends without waiting for it. A call that hangs and never releases the interpreter
lock blocks the limit too; calls of torch, NumPy and OpenCV release it.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from promptseg.errors import NoAnswerError
from promptseg.segmenter import Image, Prediction, Request, Segmenter

T = TypeVar("T")


def limited(model: Segmenter, seconds: float | None) -> Segmenter:
    """Return ``model`` with a time limit of ``seconds`` for each of its calls; ``model`` itself for None."""
    return model if seconds is None else _Limited(model, seconds)


class _Limited:
    """A model that is abandoned after the first call that takes too long: all later calls fail at once.

    That call and the later ones raise `NoAnswerError`.
    """

    def __init__(self, model: Segmenter, seconds: float) -> None:
        self.spec = model.spec
        self._model = model
        self._seconds = seconds
        self._abandoned: str | None = None
        self._calls = _start_thread()
        weakref.finalize(self, self._calls.put, None)

    def __getattr__(self, name: str) -> Any:
        """Return the other attributes of the model; they are fast and have no time limit."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """As the model's `embed`, or `NoAnswerError`."""
        return self._answer(f"embed() of {len(images)} images", lambda: self._model.embed(images))

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """As the model's `predict`, or `NoAnswerError`."""
        return self._answer(f"predict() of {len(requests)} prompts", lambda: self._model.predict(requests))

    def _answer(self, what: str, call: Callable[[], T]) -> T:
        if self._abandoned is not None:
            raise NoAnswerError(self._abandoned)
        answered: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        self._calls.put(lambda: answered.put(_outcome(call)))
        try:
            value, error = answered.get(timeout=self._seconds)
        except queue.Empty:
            self._abandoned = (
                f"model {self.spec.name!r} did not answer {what} within {self._seconds:g} s (--seg-timeout); it is not "
                "called again in this run. Finished cases are kept: the same command with more time, or with the model "
                "fixed, evaluates the rest."
            )
            raise NoAnswerError(self._abandoned) from None
        try:
            if error is not None:
                raise error
        finally:
            del error  # else its traceback and this frame would hold each other, and what the model had in memory
        return value  # type: ignore[return-value]  # without an error it is what the call returned


def _start_thread() -> queue.SimpleQueue[Callable[[], None] | None]:
    """Start the thread that makes the queued calls, until None. One for all: libraries keep state per thread."""
    calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()

    def work() -> None:
        while (call := calls.get()) is not None:
            call()
            del call  # it holds the model

    threading.Thread(target=work, name="promptseg-model", daemon=True).start()
    return calls


def _outcome(call: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    try:
        return call(), None
    except BaseException as error:  # noqa: BLE001 - raised again where the answer is waited for
        return None, error
