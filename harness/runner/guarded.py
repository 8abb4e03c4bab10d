"""A model and a data set whose calls are made by `promptseg.runner.plugin_calls.PluginCalls`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy.typing as npt

from promptseg.files.models import LocalModel
from promptseg.registry.references import resolve
from promptseg.runner import ends
from promptseg.runner.ends import Plugin
from promptseg.runner.plugin_calls import PluginCalls
from promptseg.samples import LabelMap, Samples
from promptseg.segmenter import Image, Prediction, Request, Runtime, Segmenter
from promptseg.specs import ModelSpec
from promptseg.text import counted


def load(spec: ModelSpec, files: LocalModel, runtime: Runtime, calls: PluginCalls) -> Segmenter:
    """Load a model by ``calls``, which make each of its own calls too. Its plugin may raise anything."""
    plugin = Plugin(spec.name)
    return calls.make(
        plugin, "load()", lambda: guarded(resolve(spec.load)(spec, files.files, runtime), spec.name, calls)
    )


def guarded(model: Segmenter, name: str, calls: PluginCalls) -> Segmenter:
    """Return a model that has the methods of ``model``, and makes each call by ``calls``."""
    return _GuardedSegmenter(model, Plugin(name), calls)


def guarded_samples(samples: Samples, name: str) -> Samples:
    """Return a data set that cannot end the run: what its reader raises is an error of the case."""
    return cast("Samples", _GuardedSamples(samples, Plugin(name, "data set")))


@dataclass(frozen=True, eq=False)
class _Unprepared:
    """An image that the model prepares in its own thread, before it encodes it."""

    image: Image


class _GuardedSegmenter:
    """See `guarded`. Methods that a model may have (``prepare_image``, packing) are here where the model has them."""

    def __init__(self, model: Segmenter, plugin: Plugin, calls: PluginCalls) -> None:
        self.spec = cast("ModelSpec", getattr(model, "spec", None))  # without one the first check refuses the model
        self._model = model
        self._plugin = plugin
        self._calls = calls
        self._prepares_beside: bool | None = None  # None until a call has shown whether it can

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the model; a method that the run calls is guarded."""
        if name.startswith("_"):
            raise AttributeError(name)
        found = getattr(self._model, name)
        return {"prepare_image": self._prepare, "pack_embedding": self._pack, "unpack_embedding": self._unpack}.get(
            name, found
        )

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """As the model's `embed`."""
        prepared = [self._prepared(image.image) if isinstance(image, _Unprepared) else image for image in images]
        what = f"embed() of {counted(len(images), 'image')}"
        return self._calls.make(self._plugin, what, lambda: _complete(self._model.embed(prepared)))

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """As the model's `predict`."""
        what = f"predict() of {counted(len(requests), 'prompt')}"
        return self._calls.make(self._plugin, what, lambda: _complete(self._model.predict(requests)))

    def _prepare(self, image: Image) -> Any:
        """As the model's ``prepare_image``, or the image itself, to be prepared when it is encoded."""
        if not self._prepares_beside:
            return _Unprepared(image)
        return self._calls.make_beside(self._plugin, "prepare_image()", self._call("prepare_image", image))

    def _prepared(self, image: Image) -> Any:
        call = self._call("prepare_image", image)
        if self._prepares_beside is not None:
            return self._calls.make(self._plugin, "prepare_image()", call)
        value, touches = self._calls.touches_process(self._plugin, "prepare_image()", call)
        self._prepares_beside = not touches
        return value

    def _pack(self, embedding: Any) -> Mapping[str, npt.NDArray[Any]]:
        packed: Mapping[str, npt.NDArray[Any]] = self._calls.make(
            self._plugin, "pack_embedding()", self._call("pack_embedding", embedding)
        )
        return packed

    def _unpack(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> Any:
        return self._calls.make(self._plugin, "unpack_embedding()", self._call("unpack_embedding", arrays, image))

    def _call(self, method: str, *arguments: Any) -> Callable[[], Any]:
        return lambda: getattr(self._model, method)(*arguments)


def _complete(answers: Any) -> Any:
    """Return answers that are computed when somebody looks at them as a list: that must not be after the call."""
    return answers if isinstance(answers, list | tuple) or not hasattr(answers, "__len__") else list(answers)


class _GuardedSamples:
    """See `guarded_samples`."""

    def __init__(self, samples: Samples, plugin: Plugin) -> None:
        self._samples = samples
        self._plugin = plugin

    def __getattr__(self, name: str) -> Any:
        """Return another attribute of the data set."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._samples, name)

    def ids(self) -> Sequence[str]:
        """As the data set's `ids`."""
        return ends.called(self._plugin, "ids()", self._samples.ids)

    def subject(self, case_id: str) -> str | None:
        """As the data set's `subject`."""
        return ends.called(self._plugin, "subject()", lambda: self._samples.subject(case_id))

    def labels(self, case_id: str) -> LabelMap:
        """As the data set's `labels`."""
        return ends.called(self._plugin, "labels()", lambda: self._samples.labels(case_id))

    def image(self, case_id: str) -> Image:
        """As the data set's `image`."""
        return ends.called(self._plugin, "image()", lambda: self._samples.image(case_id))
