"""The conformance kit: does a model meet the contract? Synthetic images, seconds, no download.

For the author of a model, in a test of their own::

    from promptseg.testing import assert_conforms

    def test_conforms() -> None:
        assert_conforms(load(SPEC, {}, Runtime()))

The images are bright squares on a dark, slightly noisy ground, so the right answer is known. The checks of quality
require little: more overlap with the prompted object than with another place, on average over the candidates. All
others are about the contract of `promptseg.Segmenter`. Prompts that the spec does not accept are never sent.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from promptseg._scenes import EVEN, FLAT, SCENES, TALL, WIDE, Kind, Scene, Square, box, middle, points, prompt_for
from promptseg.errors import ModelError
from promptseg.evaluation import company
from promptseg.evaluation.boundary import Boundary, Query, torch_may_read
from promptseg.evaluation.company import difference
from promptseg.segmenter import (
    Image,
    Mask,
    PackingSegmenter,
    Prediction,
    Prompt,
    Request,
    Segmenter,
    check_prediction,
    sealed,
)
from promptseg.specs import PROMPT_KINDS, ModelSpec

CLEARLY = 0.2  # IoU that is not by chance


@dataclass(frozen=True)
class Check:
    """The outcome of one check of a model.

    Attributes:
        name: of the check.
        passed: whether the model passed.
        message: what was found and what to do about it; may be a remark if it passed.
    """

    name: str
    passed: bool
    message: str = ""


@dataclass(frozen=True)
class Report:
    """All checks of one model, in the order in which they ran."""

    model: str
    checks: tuple[Check, ...]

    @property
    def failures(self) -> tuple[Check, ...]:
        """The checks that did not pass."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def passed(self) -> bool:
        """Whether the model conforms."""
        return not self.failures


def check_model(model: Segmenter) -> Report:
    """Run every check on a loaded model.

    If one of the basic checks (spec, embed, predict) fails, the others could only repeat it: they are listed as not
    run, and not as passed. Of a model that takes neither points nor boxes only what needs no prompt is checked; the
    messages of the other checks say so.
    """
    bench = _Bench(model)
    checks: list[Check] = []
    for ask in (*_BASIC, *_FURTHER):
        broken = [check.name for check in checks if not check.passed and check.name in _names(_BASIC)]
        late = Check(_name(ask), passed=False, message=f"not run: {broken[0]} comes first") if broken else None
        checks.append(late or _without_prompt(ask, bench) or _run(ask, bench))
    return Report(_model_name(model), tuple(checks))


def check_spec(model: Segmenter) -> Check:
    """Run the first check alone: the model describes itself and can be called."""
    return _run(_check_spec, _Bench(model))


def _without_prompt(ask: Ask, bench: _Bench) -> Check | None:
    """Return the outcome of a check whose prompts the model does not take; None where it can be made."""
    if ask in (_check_spec, _check_embed) or bench.kinds:
        return None
    takes = " and ".join(sorted(bench.model.spec.accepts & set(PROMPT_KINDS)))
    return Check(
        _name(ask), passed=True, message=f"not checked: its prompts are points and boxes; the model takes {takes}"
    )


def assert_conforms(model: Segmenter) -> None:
    """Raise `AssertionError` that lists every failed check of `check_model`."""
    report = check_model(model)
    if not report.passed:
        lines = [f"  {check.name}: {check.message}" for check in report.failures]
        failed = f"{len(report.failures)} of {len(report.checks)}"
        raise AssertionError("\n".join([f"model {report.model!r} fails {failed} conformance checks:", *lines]))


class _Failed(Exception):  # noqa: N818
    """A check failed; the text says what was found and what to do."""


Ask = Callable[["_Bench"], str | None]


def _name(ask: Ask) -> str:
    return ask.__name__.removeprefix("_check_")


def _names(asks: Iterable[Ask]) -> set[str]:
    return {_name(ask) for ask in asks}


def _model_name(model: object) -> str:
    spec = getattr(model, "spec", None)
    return spec.name if isinstance(spec, ModelSpec) else type(model).__name__


def _run(ask: Ask, bench: _Bench) -> Check:
    """Ask; whatever a model raises is its answer."""
    try:
        return Check(_name(ask), passed=True, message=ask(bench) or "")
    except (_Failed, ModelError) as problem:
        return Check(_name(ask), passed=False, message=str(problem))
    except Exception as error:  # noqa: BLE001 - the model under test may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(last.filename).name}:{last.lineno}"
        return Check(_name(ask), passed=False, message=f"raised {type(error).__name__}: {error} (at {place})")


class Question(NamedTuple):
    """A prompt on a scene, what it is meant for, the state of an earlier answer, and whether stability is asked for."""

    scene: Scene
    prompt: Prompt
    square: Square
    state: Any = None
    stability: bool = False


class _Bench:
    """A model with what it takes to ask it; no scene is embedded alone twice, and no question asked alone twice."""

    def __init__(self, model: Segmenter) -> None:
        self.model = model
        self._embeddings: dict[Scene, Any] = {}
        self._alone: dict[tuple[Scene, Square, bytes], Prediction] = {}

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds of prompt that the kit has and the spec accepts."""
        kinds: tuple[Kind, ...] = get_args(Kind)
        return tuple(kind for kind in kinds if kind in self.model.spec.accepts)

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return one embedding for each image, or fail."""
        found = self.model.embed(images)
        if len(found) != len(images):
            raise _Failed(f"embed got {len(images)} images and returned {len(found)} embeddings; return one for each.")
        return found

    def embedding(self, scene: Scene) -> Any:
        """Return the embedding of a scene that was alone in its batch."""
        if scene not in self._embeddings:
            self._embeddings[scene] = self.embed([scene.image()])[0]
        return self._embeddings[scene]

    def request(self, question: Question, embedding: Any) -> Request:
        """Return the request; with the target only for a model that says it sees it."""
        target = question.scene.target(question.square) if self.model.spec.sees_target else None
        return Request(embedding, question.prompt, question.state, target, stability=question.stability)

    def predict(self, questions: Sequence[Question], embeddings: Sequence[Any] | None = None) -> list[Prediction]:
        """Return the checked answers to one batch of questions."""
        if embeddings is None:
            embeddings = [self.embedding(q.scene) for q in questions]
        found = self.model.predict([self.request(q, e) for q, e in zip(questions, embeddings, strict=True)])
        if len(found) != len(questions):
            raise _Failed(
                f"predict got {len(questions)} requests and returned {len(found)} predictions; return one for each."
            )
        name = self.model.spec.name
        return [check_prediction(name, p, q.scene.size_hw) for p, q in zip(found, questions, strict=True)]

    def alone(self, question: Question) -> Prediction:
        """Return the answer to a question without a state that is asked alone."""
        key = (question.scene, question.square, question.prompt.key)
        if key not in self._alone:
            self._alone[key] = self.predict([question])[0]
        return self._alone[key]

    def one_by_one(self, questions: Sequence[Question]) -> list[Prediction]:
        """Return the answers to questions that are asked alone."""
        return [self.alone(question) for question in questions]

    def questions(self, *scenes: Scene) -> list[Question]:
        """Return every accepted kind of prompt for every object of the scenes."""
        return [
            Question(s, prompt_for(kind, square), square) for s in scenes for square in s.squares for kind in self.kinds
        ]


def _check_spec(bench: _Bench) -> None:
    """The model describes itself and can be called."""
    spec: object = getattr(bench.model, "spec", None)
    if not isinstance(spec, ModelSpec):
        raise _Failed(f"model.spec is {type(spec).__name__}, not a ModelSpec; keep the spec that load was given.")
    for method in ("embed", "predict"):
        if not callable(getattr(bench.model, method, None)):
            raise _Failed(f"the model has no method {method}; see promptseg.Segmenter.")
    if not spec.licence.strip():
        raise _Failed("spec.licence is empty; name the licence of the weights, or say 'unknown'.")
    if spec.sees_target and spec.embedded:
        raise _Failed("the spec says sees_target and embedded: a plain run would score a model that knows the answer.")


def _check_embed(bench: _Bench) -> None:
    """One embedding for each image."""
    for scene in SCENES:
        bench.embedding(scene)


def _check_predict(bench: _Bench) -> None:
    """Type, shape and dtype of the answers, on wide, tall and square images."""
    for answer in bench.one_by_one(bench.questions(*SCENES)):
        scores = answer.predicted_iou
        if scores is not None and scores.dtype != np.float32:
            raise _Failed(f"predicted_iou is {scores.dtype}; it must be float32: use .astype(np.float32).")


def _check_inputs_unchanged(bench: _Bench) -> None:
    """Neither images nor prompts are written to."""
    image = WIDE.image()
    question = bench.questions(WIDE)[0]
    given = question.prompt.key
    embeddings = bench.embed([image])
    _unchanged(image, "embed")
    bench.predict([question], embeddings)
    _unchanged(image, "predict")
    if question.prompt.key != given:
        raise _Failed("predict changed the arrays of the prompt; work on a copy.")


def _unchanged(image: Image, method: str) -> None:
    if not np.array_equal(image, WIDE.image()):
        raise _Failed(f"{method} changed the image it was given; other models see it too: work on a copy.")


@torch_may_read()
def _check_boundary(bench: _Bench) -> None:
    """Read-only inputs will do, and what is returned together lies apart in memory: as an evaluation requires it."""
    boundary, questions = Boundary(bench.model), bench.questions(WIDE, TALL)
    given = {scene: boundary.prepare(sealed(scene.image())) for scene in (WIDE, TALL)}
    encoded = dict(zip(given, boundary.embed(list(given.values())), strict=True))
    targets = [q.scene.target(q.square) if boundary.sees_target else None for q in questions]
    boundary.predict(
        [
            Query(encoded[q.scene], q.scene.size_hw, q.prompt, target=target)
            for q, target in zip(questions, targets, strict=True)
        ]
    )


def _check_edge_prompts(bench: _Bench) -> None:
    """Prompts at the edge of what occurs: image corners, many clicks, one pixel, the whole image, a flat image."""
    for name, question in _edges(bench):
        try:
            bench.predict([question])
        except Exception as error:
            h, w = question.scene.size_hw
            raise _Failed(f"{name} on an image of {w} x {h}: {type(error).__name__}: {error}") from error


def _edges(bench: _Bench) -> Iterator[tuple[str, Question]]:
    first, second = WIDE.squares
    right, bottom = WIDE.width - 1, WIDE.height - 1
    inner = Square(20, 16, 35, 23)
    if "points" in bench.kinds:
        clicks = [middle(first), middle(second, 0), (first.x0, first.y0, 1), (first.x0 - 9, first.y0, 0)] * 5
        yield "a point in the first corner", Question(WIDE, points((0, 0, 1)), first)
        yield "a point in the last corner", Question(WIDE, points((right, bottom, 1)), first)
        yield "20 clicks, some twice", Question(WIDE, points(*clicks), first)
    if "boxes" in bench.kinds:
        yield "a box of one pixel", Question(WIDE, box(70, 20, 70, 20), first)
        yield "a box round the whole image", Question(WIDE, box(0, 0, right, bottom), first)
    yield "an image without contrast", Question(FLAT, prompt_for(bench.kinds[0], inner), inner)


def _check_coordinates(bench: _Bench) -> None:
    """The mask lies on the prompted object, not where x and y would be swapped."""
    for kind in bench.kinds:
        for scene in (WIDE, TALL):
            square = scene.squares[0]
            answer = bench.alone(Question(scene, prompt_for(kind, square), square))
            swapped = Square(square.y0, square.x0, square.y1, square.x1)
            here, there = (_overlap(answer, scene.target(s)) for s in (square, swapped))
            if here <= there:
                raise _Failed(_misplaced(kind, scene, square, here, there))


def _misplaced(kind: Kind, scene: Scene, square: Square, here: float, there: float) -> str:
    advice = (
        f"{'x and y are swapped' if there > CLEARLY else 'x and y may be swapped, or scaled by the wrong side'}: "
        "points_xy and box_xyxy hold x (to the right) first, arrays are indexed [y, x], x goes with the width"
    )
    return (
        f"{kind} on the object at x {square.x0} to {square.x1}, y {square.y0} to {square.y1} of a {scene.width} x "
        f"{scene.height} image: IoU {here:.2f} with it, {there:.2f} with the place where x and y are swapped; {advice}."
    )


def _overlap(answer: Prediction, target: Mask) -> float:
    """Return the mean over the candidates of the IoU with a target; 0 for a target outside the image."""
    union = (answer.masks | target).sum(axis=(1, 2))
    return float(((answer.masks & target).sum(axis=(1, 2)) / np.maximum(union, 1)).mean())


def _check_prompts_respected(bench: _Bench) -> None:
    """Two objects, prompted in turn, give different masks, each nearer to its own object."""
    for kind in bench.kinds:
        for scene in SCENES:
            pair = [Question(scene, prompt_for(kind, square), square) for square in scene.squares]
            answers = bench.one_by_one(pair)
            if np.array_equal(answers[0].masks, answers[1].masks):
                raise _Failed(f"{kind} on two different objects gave the same masks: the prompt is not used.")
            for answer, own, other in zip(answers, scene.squares, reversed(scene.squares), strict=True):
                _prefers_own(kind, scene, answer, own, other)


def _prefers_own(kind: Kind, scene: Scene, answer: Prediction, own: Square, other: Square) -> None:
    mine, others = (_overlap(answer, scene.target(square)) for square in (own, other))
    if mine <= others:
        raise _Failed(
            f"{kind} on the object at x {own.x0} to {own.x1}, y {own.y0} to {own.y1} of a {scene.width} x "
            f"{scene.height} image: IoU {mine:.2f} with it, {others:.2f} with the other object; check that each "
            "request is answered with its own prompt and that coordinates are scaled to the model's input."
        )


def _check_labels_respected(bench: _Bench) -> str | None:
    """A background point keeps an object out that a foreground point brings in."""
    if "points" not in bench.kinds:
        return "not checked: the model takes no points"
    first, second = EVEN.squares
    target = EVEN.target(second)
    parts = []
    for label in (1, 0):
        question = Question(EVEN, points(middle(first), middle(second, label)), first)
        parts.append(float(bench.predict([question])[0].masks[:, target].mean()))
    # the ceiling answers with the target, whatever the labels say
    if parts[0] <= parts[1] and not bench.model.spec.sees_target:
        raise _Failed(
            f"a second object is covered to {parts[0]:.0%} when clicked as foreground and to {parts[1]:.0%} as "
            "background: check that labels are used, 1 for foreground and 0 for background."
        )
    return None


def _check_batch_of_images(bench: _Bench) -> None:
    """Images that are embedded together give what they give alone."""
    scenes = (WIDE, TALL)
    questions = [q for q in bench.questions(*scenes) if q.square == q.scene.squares[0]]
    together = dict(zip(scenes, bench.embed([scene.image() for scene in scenes]), strict=True))
    for question, alone in zip(questions, bench.one_by_one(questions), strict=True):
        answer = bench.predict([question], [together[question.scene]])[0]
        _same(alone, answer, "an image embedded with others, against the same image alone", "embed each by itself")


def _check_batch_of_prompts(bench: _Bench) -> None:
    """Prompts on one image that are asked together give what they give alone."""
    for scene in SCENES:
        questions = bench.questions(scene)
        for alone, answer in zip(bench.one_by_one(questions), bench.predict(questions), strict=True):
            _same(alone, answer, "prompts on one image in a batch, against one by one", _INDEPENDENT)


def _check_mixed_images(bench: _Bench) -> None:
    """A batch may hold requests on images of different sizes, in any order."""
    questions = [q for group in zip(*map(bench.questions, SCENES), strict=True) for q in reversed(group)]
    for alone, answer in zip(bench.one_by_one(questions), bench.predict(questions), strict=True):
        _same(alone, answer, "requests on different images in a batch, against one by one", _INDEPENDENT)


_INDEPENDENT = "answer each request from its own embedding, prompt and state, and in the order of the requests"


def _same(alone: Prediction, answer: Prediction, what: str, advice: str) -> None:
    """Fail unless two answers agree but for a few pixels."""
    found = difference(alone, answer)
    if found:
        raise _Failed(f"{what}: {found}; {advice}.")


def _check_company(bench: _Bench) -> None:
    """A question has one answer, whatever was encoded or asked before, after or with it."""
    found = company.dissent(bench.model, [scene_of(bench.model, scene) for scene in SCENES], seed=0)
    if found.problem:
        raise _Failed(found.problem if found.is_breach else f"{found.problem}; {company.ADVICE}.")


def scene_of(model: Segmenter, scene: Scene) -> company.Scene:
    """Return a scene with all that a model takes, to be asked about in company."""
    everything = "everything" in model.spec.accepts
    questions = [
        company.Question(q.prompt, _in_words(q.prompt), scene.target(q.square), stability)
        for q in _Bench(model).questions(scene)
        for stability in ((False, True) if everything and q.prompt.box_xyxy is None else (False,))
    ]
    return company.Scene(f"a drawn image of {scene.width} x {scene.height}", scene.image(), questions)


def _in_words(prompt: Prompt) -> str:
    parts = (["a point"] if len(prompt.points_xy) else []) + ([] if prompt.box_xyxy is None else ["a box"])
    return " and ".join(parts)


def _check_deterministic(bench: _Bench) -> None:
    """The same question twice, the image embedded anew, gives the very same answer."""
    questions = bench.questions(WIDE)
    anew = bench.embed([WIDE.image()])[0]
    for question, before in zip(questions, bench.one_by_one(questions), strict=True):
        after = bench.predict([question], [anew])[0]
        if not (np.array_equal(before.masks, after.masks) and _equal(before.predicted_iou, after.predicted_iou)):
            raise _Failed(
                "the same image and prompt gave two different answers: seed whatever is drawn at random in every call, "
                "put a network into eval mode, keep nothing from earlier calls."
            )


def _check_packing(bench: _Bench) -> str | None:
    """An embedding that was packed, kept in a file and unpacked gives the very same answer."""
    model = bench.model
    if not isinstance(model, PackingSegmenter):
        return "not checked: the model cannot pack embeddings, so they are not kept between runs"
    arrays = {name: array.copy() for name, array in model.pack_embedding(bench.embedding(WIDE)).items()}
    for array in arrays.values():
        array.setflags(write=False)
    again = model.unpack_embedding(arrays, WIDE.image())
    questions = bench.questions(WIDE)
    for question, before in zip(questions, bench.one_by_one(questions), strict=True):
        after = bench.predict([question], [again])[0]
        if not (np.array_equal(before.masks, after.masks) and _equal(before.predicted_iou, after.predicted_iou)):
            raise _Failed(
                "an unpacked embedding gives another answer: pack all that an embedding holds, in its own precision."
            )
    return None


def _equal(a: npt.NDArray[np.float32] | None, b: npt.NDArray[np.float32] | None) -> bool:
    return a is b if a is None or b is None else np.array_equal(a, b)


def _check_feedback(bench: _Bench) -> str | None:
    """A state can be handed back, more than once, and other requests in between do not matter."""
    if "feedback" not in bench.model.spec.accepts:
        return "not checked: the model takes no feedback"
    question, other = bench.questions(WIDE)[0], bench.questions(TALL)[-1]
    state = bench.predict([question])[0].state
    if state is None:
        raise _Failed("the spec accepts feedback, but predictions carry no state; set Prediction.state.")
    refined = _refined(bench, question)._replace(state=state)
    once = bench.predict([refined])[0]
    bench.predict([other._replace(state=bench.predict([other])[0].state)])
    again = bench.predict([refined])[0]
    _same(once, again, "the same state handed back twice", "a state must hold all it needs and never be written to")
    return None


def _check_everything(bench: _Bench) -> str | None:
    """Candidates say how sure and how stable they are, if the spec says that everything can be segmented."""
    if "everything" not in bench.model.spec.accepts:
        return "not checked: the model does not segment everything"
    middle_only = next(q for q in bench.questions(WIDE) if len(q.prompt.points_xy))
    answer = bench.predict([middle_only._replace(stability=True)])[0]
    for name in ("predicted_iou", "stability"):
        numbers = getattr(answer, name)
        if numbers is None or numbers.dtype != np.float32:
            found = "None" if numbers is None else numbers.dtype
            raise _Failed(
                f"the spec accepts everything, but {name} is {found}; it must be float32 where it is asked for."
            )
    plain = bench.predict([middle_only])[0]
    _same(
        replace(plain, stability=None),
        replace(answer, stability=None),
        "a prompt with and without a question for stability",
        "the question must not change the answer",
    )
    return None


def _refined(bench: _Bench, question: Question) -> Question:
    """Return the next click on the same object; the same box for a model without points."""
    if "points" not in bench.kinds:
        return question
    square = question.square
    return question._replace(prompt=points(middle(square), (square.x0 - 9, square.y0, 0)))


_BASIC: tuple[Ask, ...] = (_check_spec, _check_embed, _check_predict)
_FURTHER: tuple[Ask, ...] = (
    _check_inputs_unchanged,
    _check_boundary,
    _check_edge_prompts,
    _check_coordinates,
    _check_prompts_respected,
    _check_labels_respected,
    _check_batch_of_images,
    _check_batch_of_prompts,
    _check_mixed_images,
    _check_company,
    _check_deterministic,
    _check_packing,
    _check_feedback,
    _check_everything,
)
