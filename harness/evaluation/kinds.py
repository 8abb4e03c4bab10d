"""Kinds of work: what a case is, which cases there are, and how a model is evaluated on them.

Whoever plans, distributes, resumes or stops an evaluation knows a kind by this protocol alone, so that a kind whose
cases are not images needs no branch anywhere else. A prompt mode names its kind (`promptseg.PromptMode.kind`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Protocol

from promptseg.errors import CaseError, ConfigError
from promptseg.evaluation.evaluate import evaluate
from promptseg.evaluation.jobs import CellJob, Evaluated, Sink
from promptseg.evaluation.reading import belongs
from promptseg.samples import Samples, target_of
from promptseg.segmenter import Segmenter
from promptseg.specs import PromptMode, TaskSpec


class Kind(Protocol):
    """A kind of work.

    Attributes:
        name: what prompt modes call it; `promptseg.results.fingerprints.SCORING` lists its code under that name.
    """

    name: str

    def cases(self, samples: Samples) -> Sequence[str]:
        """Return the ids of all cases of a data set, sorted."""

    def belonging(self, samples: Samples, cells: Sequence[tuple[TaskSpec, PromptMode]], case_id: str) -> list[bool]:
        """Say of each (task, mode) whether a case belongs to it, by its masks, which are read once.

        Raises `CaseError` if they are unusable.
        """

    def evaluate(
        self,
        model: Segmenter,
        samples: Samples,
        jobs: Sequence[CellJob],
        sink: Sink,
        *,
        order: Sequence[str],
        seed: int,
        limit: int | None,
        batch_size: int | None,
        advance: Callable[[int], None],
    ) -> Evaluated:
        """Evaluate jobs of this kind; see `promptseg.evaluation.evaluate.evaluate`."""


class ImageKind:
    """A case is an image. The model encodes it once and is asked about it with prompts."""

    name: str = "image"

    def cases(self, samples: Samples) -> Sequence[str]:
        """Return the ids of all images, sorted."""
        return samples.ids()

    def belonging(self, samples: Samples, cells: Sequence[tuple[TaskSpec, PromptMode]], case_id: str) -> list[bool]:
        """Say whether an image shows the object of each task, or may be asked about it where it does not."""
        labels = samples.labels(case_id)
        tasks = {task.name: task for task, _ in cells}
        shown = {name: bool(target_of(task, labels).any()) for name, task in tasks.items()}
        return [belongs(mode, has_object=shown[task.name]) for task, mode in cells]

    evaluate = staticmethod(evaluate)


KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in (ImageKind(),)})


def kind_of(mode: PromptMode) -> Kind:
    """Return the kind of work of a prompt mode.

    Raises:
        ConfigError: the mode names a kind that this version does not know.
    """
    if mode.kind not in KINDS:
        raise ConfigError(
            f"prompt mode {mode.name!r} is of kind {mode.kind!r}; this version of promptseg knows {', '.join(KINDS)}."
        )
    return KINDS[mode.kind]


def count_cases(kind: Kind, samples: Samples, task: TaskSpec, mode: PromptMode) -> int:
    """Return how many cases of a data set belong to a task, as far as their masks can be read. Reads all masks."""

    def counts(case_id: str) -> bool:
        try:
            return kind.belonging(samples, [(task, mode)], case_id)[0]
        except CaseError:
            return False

    return sum(map(counts, kind.cases(samples)))
