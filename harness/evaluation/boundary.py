"""The border between promptseg and a model: what is handed out stays as it is, what comes back is copied and checked.

A model may be written by anybody. Whatever it does, no other case, mode or model may see it: a write to what was handed
out, memory that is used again, an answer that is no plain array. What breaks the contract raises `ModelError` for the
call; `promptseg.evaluation.batches` then asks again in parts, so that only the culprit fails, by name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import chain, combinations, islice, product
from typing import Any, Literal, NamedTuple
from weakref import WeakSet

import numpy as np

from promptseg.errors import ModelError
from promptseg.evaluation.witness import Span, Witness, share_memory, span
from promptseg.segmenter import Image, Mask, Prediction, Prompt, Request, Segmenter, check_prediction, sealed, snapshot

Method = Literal["embed", "predict"]
_REFUSED_WRITE = re.compile(r"\bread-?only\b|WRITEABLE")  # as NumPy, OpenCV and Cython say it


class BoundaryError(ModelError):
    """A model wrote to what it was given, or answers of it share memory, also where it is asked alone."""


@contextmanager
def torch_may_read() -> Iterator[None]:
    """Hide that torch warns of read-only arrays, which it is free to read; that it writes to one is noticed here.

    Around all calls of a run, not each of them: the filters of warnings are those of all threads.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        yield


class Given(NamedTuple):
    """What `Segmenter.embed` is handed for an image: the image itself, or what the model made of it ahead of time."""

    what: Any
    witness: Witness
    is_image: bool


@dataclass(frozen=True, eq=False)
class Encoded:
    """What `Segmenter.embed` returned for an image.

    Attributes:
        embedding: what it returned.
        witness: how that was then.
        given: what it was given.
    """

    embedding: Any
    witness: Witness
    given: Given

    @property
    def image(self) -> Image | None:
        """The image, if the model was given that."""
        return self.given.what if self.given.is_image else None


@dataclass(frozen=True, eq=False)
class State:
    """What a model left for its next answer on an object, and how it was then. Equal to itself alone."""

    state: Any
    witness: Witness


class Query(NamedTuple):
    """One question to a model; see `promptseg.Request`.

    Attributes:
        encoded: the image.
        size_hw: of the image.
        prompt: the prompt.
        state: what the answer before left, for a model that takes it; None for others.
        target: (H, W) bool for a model that sees it; None for others.
        candidate: the mask of the answer before that this prompt corrects.
        stability: whether stabilities are asked for.
    """

    encoded: Encoded
    size_hw: tuple[int, int]
    prompt: Prompt
    state: State | None = None
    target: Mask | None = None
    candidate: int = 0
    stability: bool = False

    def request(self) -> Request:
        """Return a request with copies of its own: a model that finds a way to write to them misleads nobody else."""
        return Request(
            self.encoded.embedding,
            self.prompt.sealed(),
            None if self.state is None else self.state.state,
            None if self.target is None else sealed(self.target),
            self.candidate,
            self.stability,
        )


class Boundary:
    """Calls a model, and lets nothing pass in either direction that breaks the contract of `promptseg.Segmenter`.

    Args:
        model: encodes and decodes.
        measure: wraps each call of the model, to measure what it takes.

    Attributes:
        name: of the model.
        sees_target: whether its requests have a target.
        takes_state: whether its requests have a state.
    """

    def __init__(
        self, model: Segmenter, measure: Callable[[Method], AbstractContextManager[object]] = lambda _: nullcontext()
    ) -> None:
        self._model = model
        self._measure = measure
        self._alive: WeakSet[Encoded] = WeakSet()  # what the model may reach of other images
        self._unchanged: frozenset[Encoded] = frozenset()  # of those the last call has left as they were
        self.name = model.spec.name
        self.sees_target = model.spec.sees_target
        self.takes_state = "feedback" in model.spec.accepts

    def prepare(self, image: Image) -> Given:
        """Return what `embed` gets for an (H, W, 3) uint8 image that is `sealed`. Called from any thread."""
        ahead = getattr(self._model, "prepare_image", None)
        if ahead is None:
            return Given(image, Witness(image), is_image=True)
        with self._writes_refused("prepare_image"):
            made = ahead(image)
        return Given(made, Witness(made), is_image=False)

    def embed(self, images: Sequence[Given]) -> list[Encoded]:
        """Return one embedding for each image; arrays in it are read-only from then on.

        Raises:
            ModelError: the model returned another number of them, changed an image, or has one memory for several.
        """
        for image in images:
            if not image.is_image and (where := image.witness.changed()):
                raise self._error(f"embed() changed what prepare_image() had returned ({where})", _COPY)
        self._unchanged = frozenset()
        embeddings = self._answers("embed", lambda: self._model.embed([image.what for image in images]), len(images))
        for image in images:
            if image.is_image and image.witness.changed():
                raise self._error("embed() changed the image that it was given", _COPY)
        encoded = [_encoded(embedding, image) for embedding, image in zip(embeddings, images, strict=True)]
        for one, other in chain(combinations(encoded, 2), product(encoded, self._alive)):
            if _is_one(one.witness.arrays, other.witness.arrays) and not one.given.witness.equals(other.given.witness):
                raise self._error("embed() returned the same memory for two images", _NEW)
        self._alive.update(encoded)
        return encoded

    def predict(self, queries: Sequence[Query]) -> list[Prediction]:
        """Return a checked copy of each answer; its state is a `State`, None for a model that takes none.

        Raises:
            ModelError: wrong number, type, shape or dtype of answers, answers that share memory with each other or with
                what the model was given, or the model wrote to that.
        """
        requests = [query.request() for query in queries]
        self._check_inputs(queries)
        found = self._answers("predict", lambda: self._model.predict(requests), len(requests))
        answers = [snapshot(self.name, answer) for answer in found]
        checked = [check_prediction(self.name, a, q.size_hw) for a, q in zip(answers, queries, strict=True)]
        self._unchanged = frozenset()
        self._check_inputs(queries)
        states = [State(a.state, _read_only(a.state)) if self._leaves_state(a) else None for a in answers]
        whole = enumerate(zip(requests, queries, answers, states, strict=True))
        others = self._alive.difference(query.encoded for query in queries)
        of_others = [_Piece(a, span(a), -1, what) for other in others for a, what in _arrays(other)]
        if problem := _shared([of_others, *(_pieces(i, *of) for i, of in whole)]):
            raise self._error(f"predict() returned {problem}", _NEW)
        return [Prediction(c.masks, c.predicted_iou, s, c.stability) for c, s in zip(checked, states, strict=True)]

    def _leaves_state(self, answer: Prediction) -> bool:
        return self.takes_state and answer.state is not None

    def _check_inputs(self, queries: Sequence[Query]) -> None:
        """Raise `ModelError` unless embeddings and states are what they were when the model returned them."""
        asked = frozenset(query.encoded for query in queries)
        for encoded in asked - self._unchanged:
            if where := encoded.witness.changed():
                raise self._error(f"an embedding was changed after embed() had returned it ({where})", _COPY)
        self._unchanged = asked
        for query in queries:
            if query.state is not None and (where := query.state.witness.changed()):
                raise self._error(f"a state was changed after predict() had returned it ({where})", _COPY)

    def _answers(self, method: Method, call: Callable[[], object], n: int) -> list[Any]:
        """Return what a call of the model returns, one answer for each question.

        Whatever is no list or tuple is read here, once, and no longer than it should be: length and content of an
        object of the model's own need not agree.
        """
        with self._measure(method), self._writes_refused(method):
            found = call()
            if isinstance(found, str | bytes | Mapping | Set) or not isinstance(found, Iterable):
                raise ModelError(
                    f"model {self.name!r}: {method}() returned {type(found).__name__}, not a list of {n} answers."
                )
            listed = list(islice(iter(found), n + 1))
        if len(listed) != n:
            some = f"more than {n}" if len(listed) > n else len(listed)
            raise ModelError(f"model {self.name!r}: {method}() returned {some} answers to {n} questions.")
        return listed

    @contextmanager
    def _writes_refused(self, method: str) -> Iterator[None]:
        """Name the model where NumPy or OpenCV refuse a write to a read-only array."""
        try:
            yield
        except Exception as error:
            if isinstance(error, OSError | ModelError) or not _REFUSED_WRITE.search(str(error)):
                raise
            problem = f"{method}() writes to what it was given or has returned ({type(error).__name__}: {error})"
            raise self._error(problem, _COPY) from error.with_traceback(None)  # whose frames hold what it computed

    def _error(self, problem: str, advice: str) -> BoundaryError:
        return BoundaryError(f"model {self.name!r}: {problem}; {advice}.")


_COPY = "other prompts see it too: work on a copy"
_NEW = "what was there before is lost: return new arrays, or copies"


def _encoded(embedding: Any, image: Given) -> Encoded:
    same = image.is_image and embedding is image.what
    return Encoded(embedding, image.witness if same else _read_only(embedding), image)


def _is_one(arrays: Sequence[Any], others: Sequence[Any]) -> bool:
    """Say whether two embeddings lie in the same memory, each array of them."""
    return bool(arrays) and len(arrays) == len(others) and all(map(share_memory, arrays, others))


def _read_only(thing: object) -> Witness:
    """Make the NumPy arrays of an embedding or a state read-only; return what notices other writes to them."""
    witness = Witness(thing)
    for array in witness.arrays:
        if isinstance(array, np.ndarray):
            array.flags.writeable = False
    return witness


# ---------------------------------------------------------------------------------------------- memory of answers


class _Piece(NamedTuple):
    """An array of a call: where it lies, whose it is (the index of a question), and what it is."""

    array: Any
    span: Span
    owner: int
    what: str


_ANSWERS = ("masks", "predicted_iou", "stability", "state")


def _pieces(i: int, request: Request, query: Query, answer: Prediction, state: State | None) -> list[_Piece]:
    """Return all arrays of a question and of its answer. Of a state only what is not there anyway counts."""
    given = _arrays(query.encoded)
    if request.target is not None:
        given.append((request.target, "target"))
    inputs = [array for array, _ in given] + (query.state.witness.arrays if query.state else [])
    own = [(getattr(answer, what), what) for what in _ANSWERS[:-1]]
    left = state.witness.arrays if state else []
    own += [(array, "state") for array in left if not any(share_memory(array, there) for there in inputs)]
    return [_Piece(array, span(array), i, what) for array, what in (*given, *own) if array is not None]


def _arrays(encoded: Encoded) -> list[tuple[Any, str]]:
    """Return the arrays of an encoded image, with what they are."""
    image = [] if encoded.image is None else [(encoded.image, "image")]
    return [*((array, "embedding") for array in encoded.witness.arrays), *image]


def _shared(pieces: Iterable[Sequence[_Piece]]) -> str:
    """Return which arrays share memory that must not, in words; nothing where none do."""
    reaching: list[_Piece] = []
    for piece in sorted((piece for some in pieces for piece in some), key=lambda piece: piece.span):
        reaching = [p for p in reaching if (p.span.device, p.span.high) > (piece.span.device, piece.span.low)]
        for other in reaching:
            if (what := _confused(piece, other)) and share_memory(piece.array, other.array):
                return what
        reaching.append(piece)
    return ""


def _confused(one: _Piece, other: _Piece) -> str:
    """Return what two arrays are that may not share memory, in words; nothing for two that may."""
    if one.what not in _ANSWERS:
        one, other = other, one
    if one.what not in _ANSWERS:
        return ""
    if other.what in _ANSWERS:
        return "" if one.owner == other.owner else f"{one.what} and {other.what} of two answers in the same memory"
    if one.what == "state" or (other.what == "embedding" and one.owner == other.owner):
        return ""
    return f"{one.what} in the memory of the {other.what} that it was given"
