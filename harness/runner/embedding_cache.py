"""Embeddings kept between runs: a folder of safetensors files, keyed by everything the content depends on.

Layout, under the folder: ``ab/abcd....safetensors``, named by the sha256 of pixels, model and machine. There are no
locks: a file appears whole by a rename, contains its own key and a checksum, and is a miss unless both are right. The
worst effect of a killed process, a full disk or a second writer is that an image is encoded again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from promptseg.errors import ModelError
from promptseg.files.atomic import sweep
from promptseg.runner.options import CacheLimit
from promptseg.segmenter import Image, PackingSegmenter, Prediction, Request, Segmenter

FORMAT = 1  # of what a file holds; part of every key
_NAME = re.compile(r"[0-9a-f]{64}\.safetensors")
_UNFINISHED = f"[0-9a-f][0-9a-f]/.{'[0-9a-f]' * 64}.safetensors.*"  # being written, or left by a killed writer
_CHECKS_PER_LIMIT = 20  # a process measures the folder again when it has written a twentieth of the limit
_FILL_AFTER_EVICTION = 0.9  # of the limit; with 1 every later file would need another eviction
_MAX_DAMAGE_NOTICES = 3

Tensors = Mapping[str, npt.NDArray[Any]]


class _File(NamedTuple):
    path: Path
    size: int
    used: float


class EmbeddingStore:
    """The folder of one process's runs; other processes may use it at the same time.

    Reading sets a file's time; where the limit is exceeded, the files that were read longest ago are removed first.
    Several processes at once may exceed the limit by a twentieth each.

    Args:
        space: the folder and its limit.
        notify: called with a sentence about each damaged file (the first few), and once when nothing can be written.
    """

    def __init__(self, space: CacheLimit, notify: Callable[[str], None]) -> None:
        self._folder, self._limit = space
        self._notify = notify
        self._room = 0  # bytes that may be written before the folder must be measured
        self._damaged = 0
        self._writes = True

    def read(self, key: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the tensors stored under a key; None where there are none, or the file is damaged."""
        path = self._path(key)
        try:
            tensors = _decoded(path.read_bytes(), key)
        except (FileNotFoundError, NotADirectoryError):  # `write` reports the latter
            return None
        except Exception as error:  # noqa: BLE001 - a plugin may raise anything
            self.distrust(key, str(error) or type(error).__name__)
            return None
        with contextlib.suppress(OSError):  # a read-only folder works too
            os.utime(path)
        return tensors

    def distrust(self, key: str, reason: str) -> None:
        """Report that the file of a key cannot be used, and that the image is encoded again."""
        self._damaged += 1
        if self._damaged <= _MAX_DAMAGE_NOTICES:
            more = "; further ones are not reported" if self._damaged == _MAX_DAMAGE_NOTICES else ""
            self._notify(f"{self._path(key)} is damaged ({reason}); the image is encoded again{more}")

    def write(self, key: str, tensors: Tensors) -> None:
        """Store tensors under a key. Where that fails, this process stores nothing more, and the run continues."""
        if not self._writes:
            return
        path, content = self._path(key), _encoded(tensors, key)
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
        try:
            self._make_room(len(content))
            path.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(content)
            part.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            self.give_up(str(error))

    def give_up(self, reason: str) -> None:
        """Store nothing more, and report it; stored embeddings are still read."""
        self._writes = False
        self._notify(f"embeddings are no longer stored in {self._folder} ({reason}); the run continues without")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, size: int) -> None:
        """Remove the files read longest ago until ``size`` more bytes fit. Raises OSError if they never can."""
        if size > self._limit:
            raise OSError(f"one takes {size} bytes, the limit is {self._limit}")
        self._room -= size
        if self._room >= 0:
            return
        files = sorted(self._files(), key=lambda file: file.used)
        total = size + sum(file.size for file in files)
        if total > self._limit:
            for file in files:
                if total <= _FILL_AFTER_EVICTION * self._limit:
                    break
                file.path.unlink(missing_ok=True)
                total -= file.size
        self._room = min(self._limit - total, self._limit // _CHECKS_PER_LIMIT)

    def _files(self) -> Iterator[_File]:
        """Yield the whole files of this cache; remove partial ones that were left more than a day ago."""
        sweep(self._folder, _UNFINISHED)
        for path in self._folder.glob("[0-9a-f][0-9a-f]/*"):
            if not _NAME.fullmatch(path.name):
                continue
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                stat = path.stat()
                yield _File(path, stat.st_size, stat.st_mtime)


def _encoded(tensors: Tensors, key: str) -> bytes:
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    return save(arrays, metadata={"promptseg_embedding": key, "sha256": _digest(arrays)})


def _decoded(content: bytes, key: str) -> dict[str, npt.NDArray[Any]]:
    """Return the tensors of a file. Raises where it is truncated, changed, or of another key."""
    from safetensors.numpy import load

    tensors = load(content)
    length = int.from_bytes(content[:8], "little")
    metadata = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if metadata.get("promptseg_embedding") != key:
        raise ValueError("it has another key")
    if metadata.get("sha256") != _digest(tensors):
        raise ValueError("its checksum differs")
    return tensors


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()


class CachedSegmenter:
    """A model that encodes only the images whose embeddings are not in a store.

    Args:
        model: encodes, packs and decodes.
        store: the stored embeddings.
        identity: all that an embedding depends on beside the pixels (model and machine), as JSON can hold it.
    """

    def __init__(self, model: PackingSegmenter, store: EmbeddingStore, identity: Mapping[str, Any]) -> None:
        self.spec = model.spec
        self._model = model
        self._store = store
        self._identity = json.dumps([FORMAT, identity], sort_keys=True).encode()

    def __getattr__(self, name: str) -> Any:
        """Return the model's other attributes; but images must come unprepared, since their pixels are the key."""
        if name == "prepare_image" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return the embeddings of images, from the store where it has them.

        Raises:
            ModelError: the model returned another number of embeddings than it was given images.
        """
        keys = [self._key(image) for image in images]
        embeddings = [self._stored(key, image) for key, image in zip(keys, images, strict=True)]
        missing = [i for i, embedding in enumerate(embeddings) if embedding is None]
        fresh = self._model.embed([images[i] for i in missing]) if missing else ()
        if len(fresh) != len(missing):
            raise ModelError(f"model {self.spec.name!r}: embed() returned {len(fresh)} answers to {len(missing)}.")
        for i, embedding in zip(missing, fresh, strict=True):
            embeddings[i] = embedding
            self._keep(keys[i], embedding)
        return embeddings

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Return the model's answers."""
        return self._model.predict(requests)

    def _key(self, image: Image) -> str:
        digest = hashlib.sha256(self._identity)
        digest.update(f"\0{image.shape}\0".encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()

    def _stored(self, key: str, image: Image) -> Any:
        """Return the stored embedding, None where there is none that can be used."""
        tensors = self._store.read(key)
        if tensors is None:
            return None
        try:
            return self._model.unpack_embedding(tensors, image)
        except Exception as error:  # noqa: BLE001 - of a plugin
            self._store.distrust(key, f"unpack_embedding: {error!r}")
            return None

    def _keep(self, key: str, embedding: Any) -> None:
        try:
            tensors = self._model.pack_embedding(embedding)
            if all(np.isfinite(array).all() for array in tensors.values()):  # else a transient fault would be stored
                self._store.write(key, tensors)
        except Exception as error:  # noqa: BLE001 - of a plugin
            self._store.give_up(f"pack_embedding: {error!r}")


def cached(
    model: Segmenter, store: EmbeddingStore, identity: Mapping[str, Any], notify: Callable[[str], None]
) -> Segmenter:
    """Return the model with a store of its embeddings, or the model itself, with a notice, if it cannot pack them."""
    if all(hasattr(model, name) for name in ("pack_embedding", "unpack_embedding")):  # of a wrapped model too
        return CachedSegmenter(cast(PackingSegmenter, model), store, identity)
    notify(f"--seg-embedding-cache: {model.spec.name} has no embeddings that can be stored; it runs without")
    return model
