"""Embeddings kept between runs: a folder of safetensors files, each found by all that its content depends on.

Layout, under the folder: ``ab/abcd....safetensors``, named by the sha256 of pixels, model and machine. Nobody locks
anything: a file appears whole by a rename, carries its own name and a checksum, and is a miss unless both are right. So
the worst that a killed process, a full disk or a second writer can do is that an image is encoded again.
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
_LOOK_AFTER = 20  # a process looks at the folder's size again when it has written a twentieth of the limit
_KEPT = 0.9  # of the limit, where some must go: else every later file would cost another look
_DAMAGED_TOLD = 3

Tensors = Mapping[str, npt.NDArray[Any]]


class _File(NamedTuple):
    path: Path
    size: int
    used: float


class EmbeddingStore:
    """The folder of one process's runs; other processes may use it at the same time.

    Reading sets a file's time, and where the limit is passed the files that were read longest ago go first. Several
    processes at once may pass the limit by a twentieth each.

    Args:
        space: the folder and its limit.
        tell: called with a sentence about each damaged file (the first few), and once where nothing can be kept.
    """

    def __init__(self, space: CacheLimit, tell: Callable[[str], None]) -> None:
        self._folder, self._limit = space
        self._tell = tell
        self._room = 0  # bytes that may be written before the folder must be looked at
        self._damaged = 0
        self._writes = True

    def read(self, key: str) -> dict[str, npt.NDArray[Any]] | None:
        """Return the tensors kept under a key; None where there are none, or none that can be trusted."""
        path = self._path(key)
        try:
            tensors = _decoded(path.read_bytes(), key)
        except (FileNotFoundError, NotADirectoryError):  # of the latter `write` tells
            return None
        except Exception as error:
            self.distrust(key, str(error) or type(error).__name__)
            return None
        with contextlib.suppress(OSError):  # a folder that may only be read serves as well
            os.utime(path)
        return tensors

    def distrust(self, key: str, reason: str) -> None:
        """Say that what is kept under a key cannot be used, and that the image is encoded again."""
        self._damaged += 1
        if self._damaged <= _DAMAGED_TOLD:
            more = "; further ones are not told" if self._damaged == _DAMAGED_TOLD else ""
            self._tell(f"{self._path(key)} is not the embedding it should be ({reason}); encoded again{more}")

    def write(self, key: str, tensors: Tensors) -> None:
        """Keep tensors under a key. Where that fails, nothing more is kept by this process: the run goes on."""
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
        """Keep nothing more, and say so; what is there already is still read."""
        self._writes = False
        self._tell(f"embeddings are no longer kept in {self._folder} ({reason}); the run goes on without")

    def _path(self, key: str) -> Path:
        return self._folder / key[:2] / f"{key}.safetensors"

    def _make_room(self, size: int) -> None:
        """Remove what was read longest ago until ``size`` more bytes fit. Raises OSError if they never can."""
        if size > self._limit:
            raise OSError(f"one takes {size} bytes, the limit is {self._limit}")
        self._room -= size
        if self._room >= 0:
            return
        files = sorted(self._files(), key=lambda file: file.used)
        total = size + sum(file.size for file in files)
        if total > self._limit:
            for file in files:
                if total <= _KEPT * self._limit:
                    break
                file.path.unlink(missing_ok=True)
                total -= file.size
        self._room = min(self._limit - total, self._limit // _LOOK_AFTER)

    def _files(self) -> Iterator[_File]:
        """Yield the files that are ours and whole; remove what writers left that were killed more than a day ago."""
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
    """Return the tensors of a file. Raises where it is cut short, changed, or another's."""
    from safetensors.numpy import load

    tensors = load(content)
    length = int.from_bytes(content[:8], "little")
    about = json.loads(content[8 : 8 + length]).get("__metadata__", {})
    if about.get("promptseg_embedding") != key:
        raise ValueError("it is another's")
    if about.get("sha256") != _digest(tensors):
        raise ValueError("its checksum is another")
    return tensors


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(array.data)
    return digest.hexdigest()


class CachedSegmenter:
    """A model whose images are encoded only where a store does not have their embeddings.

    Args:
        model: encodes, packs and decodes.
        store: what is known already.
        identity: of model and machine: all that an embedding depends on beside the pixels, as JSON can hold it.
    """

    def __init__(self, model: PackingSegmenter, store: EmbeddingStore, identity: Mapping[str, Any]) -> None:
        self.spec = model.spec
        self._model = model
        self._store = store
        self._identity = json.dumps([FORMAT, identity], sort_keys=True).encode()

    def __getattr__(self, name: str) -> Any:
        """Return what else the model offers, which a wrapper must not hide; but images come unprepared, as keys."""
        if name == "prepare_image" or name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._model, name)

    def embed(self, images: Sequence[Image]) -> Sequence[Any]:
        """Return what the model would, from the store where it has it.

        Raises:
            ModelError: the model returned another number of embeddings than it was given images.
        """
        keys = [self._key(image) for image in images]
        embeddings = [self._found(key, image) for key, image in zip(keys, images, strict=True)]
        missing = [i for i, embedding in enumerate(embeddings) if embedding is None]
        fresh = self._model.embed([images[i] for i in missing]) if missing else ()
        if len(fresh) != len(missing):
            raise ModelError(f"model {self.spec.name!r}: embed() returned {len(fresh)} answers to {len(missing)}.")
        for i, embedding in zip(missing, fresh, strict=True):
            embeddings[i] = embedding
            self._keep(keys[i], embedding)
        return embeddings

    def predict(self, requests: Sequence[Request]) -> Sequence[Prediction]:
        """Let the model answer."""
        return self._model.predict(requests)

    def _key(self, image: Image) -> str:
        digest = hashlib.sha256(self._identity)
        digest.update(f"\0{image.shape}\0".encode())
        digest.update(np.ascontiguousarray(image).data)
        return digest.hexdigest()

    def _found(self, key: str, image: Image) -> Any:
        """Return the embedding, or None."""
        tensors = self._store.read(key)
        if tensors is None:
            return None
        try:
            return self._model.unpack_embedding(tensors, image)
        except Exception as error:  # of a plugin
            self._store.distrust(key, f"unpack_embedding: {error!r}")
            return None

    def _keep(self, key: str, embedding: Any) -> None:
        try:
            tensors = self._model.pack_embedding(embedding)
            if all(np.isfinite(array).all() for array in tensors.values()):  # else a fault of a moment would stay
                self._store.write(key, tensors)
        except Exception as error:  # of a plugin
            self._store.give_up(f"pack_embedding: {error!r}")


def cached(
    model: Segmenter, store: EmbeddingStore, identity: Mapping[str, Any], tell: Callable[[str], None]
) -> Segmenter:
    """Return the model with a store behind its encoder, or as it is, with a notice, where it cannot pack embeddings."""
    if all(hasattr(model, name) for name in ("pack_embedding", "unpack_embedding")):  # of a wrapped model too
        return CachedSegmenter(cast(PackingSegmenter, model), store, identity)
    tell(f"--seg-embedding-cache: {model.spec.name} has no embeddings that can be kept; it runs without")
    return model
