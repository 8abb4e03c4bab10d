"""Embeddings kept between runs: the same scores to the last bit, and no harm from whatever lies in the folder."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from support.paths import SHARED
from support.project import Project
from support.sam_inputs import prompt_of, smooth_image

from promptseg.errors import ModelError
from promptseg.models.sam import minisam, sam_onnx
from promptseg.models.sam._packing import packed, unpacked
from promptseg.results.parquet import read_parquet
from promptseg.runner.embedding_cache import CachedSegmenter, EmbeddingStore, cached
from promptseg.runner.options import CacheLimit
from promptseg.segmenter import Image, Prediction, Request, Runtime
from promptseg.specs import ModelSpec

REAL = SHARED / "weights" / "minisam"
SPEC = ModelSpec(name="toy", family="test", load="toy:load", licence="none", accepts=frozenset({"points", "boxes"}))
KEYS = [f"{i:064x}" for i in range(20)]
ARRAYS: dict[str, npt.NDArray[Any]] = {
    "a": np.arange(24, dtype=np.float32).reshape(2, 3, 4),
    "b": np.array([7], dtype=np.int64),
}


def store_in(folder: Path, limit: int = 10**9) -> tuple[EmbeddingStore, list[str]]:
    """Return a store and what it tells."""
    notices: list[str] = []
    return EmbeddingStore(CacheLimit(folder, limit), notices.append), notices


def files_in(folder: Path) -> list[Path]:
    """Return all files."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------- the store


def test_what_is_written_is_read(tmp_path: Path) -> None:
    """Values, shapes and dtypes come back, by another store of the same folder too; other keys have nothing."""
    store, notices = store_in(tmp_path)
    store.write(KEYS[0], ARRAYS)
    found = store_in(tmp_path)[0].read(KEYS[0])
    assert found is not None
    assert found.keys() == ARRAYS.keys()
    assert all(np.array_equal(found[n], a) and found[n].dtype == a.dtype for n, a in ARRAYS.items())
    assert (store.read(KEYS[1]), notices) == (None, [])


def _flipped(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut short": lambda content: content[:-5],
    "longer": lambda content: content + b"\0",
    "a bit of a value": lambda content: _flipped(content, len(content) - 3),
    "a bit of the length": lambda content: _flipped(content, 6),
    "a bit of the header": lambda content: _flipped(content, content.index(b"F32") + 1),
    "no safetensors": lambda content: b"\x80\x04pickle" * 99,
    "without metadata": lambda content: content.replace(b"__metadata__", b"__metadatb__"),
    "another's": lambda content: content.replace(KEYS[0].encode(), KEYS[1].encode()),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_file_that_is_not_what_it_should_be_is_a_miss(tmp_path: Path, kind: str) -> None:
    """Each damage is reported with the file's name and replaced by the next write; never a wrong value or a crash."""
    store, notices = store_in(tmp_path)
    store.write(KEYS[0], ARRAYS)
    (path,) = files_in(tmp_path)
    path.write_bytes(DAMAGE[kind](path.read_bytes()))
    assert store.read(KEYS[0]) is None
    assert len(notices) == 1
    assert f"{path} is damaged (" in notices[0]
    store.write(KEYS[0], ARRAYS)
    assert store.read(KEYS[0]) is not None


def test_every_single_flipped_bit_is_found(tmp_path: Path) -> None:
    """Wherever a bit of a file is wrong, its values are right or it is a miss."""
    store, _ = store_in(tmp_path)
    store.write(KEYS[0], ARRAYS)
    (path,) = files_in(tmp_path)
    content = path.read_bytes()
    for at in range(len(content)):
        path.write_bytes(_flipped(content, at))
        found = store.read(KEYS[0])
        assert found is None or all(np.array_equal(found[n], a) for n, a in ARRAYS.items())


def test_many_damaged_files_are_told_of_three_times(tmp_path: Path) -> None:
    """A disk that went bad does not fill the terminal."""
    store, notices = store_in(tmp_path)
    for key in KEYS:
        store.write(key, ARRAYS)
    for path in files_in(tmp_path):
        path.write_bytes(b"")
    assert [store.read(key) for key in KEYS] == [None] * len(KEYS)
    assert len(notices) == 3
    assert notices[-1].endswith("encoded again; further ones are not reported")


def test_the_limit_is_kept_by_removing_what_was_read_longest_ago(tmp_path: Path) -> None:
    """The folder never passes its limit; what is read stays, and files that are not ours are not touched."""
    arrays = {"a": np.zeros(2500, np.float32)}  # 10 kB, and a header
    foreign = [tmp_path / "notes.txt", tmp_path / "00" / "mine.safetensors"]
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(50_000))
        os.utime(path, (0, 0))
    store, notices = store_in(tmp_path, limit=105_000)
    for age, key in enumerate(KEYS):
        store.write(key, arrays)
        kept = [path for path in files_in(tmp_path) if path not in foreign]
        assert sum(path.stat().st_size for path in kept) <= 105_000
        if store._path(key).exists():  # the file system's clock may be too coarse for the test's pace
            os.utime(store._path(key), (1000.0 + age, 1000.0 + age))
        assert store.read(KEYS[0]) is not None  # sets its time to now
    assert 8 <= len(kept) <= 10
    assert store.read(KEYS[-1]) is not None
    assert store.read(KEYS[1]) is None
    assert all(path.exists() for path in foreign)
    assert notices == []


def test_what_can_never_fit_is_not_kept(tmp_path: Path) -> None:
    """An embedding larger than the limit ends the keeping with a sentence, not the run, and removes nothing."""
    store, notices = store_in(tmp_path, limit=1000)
    store.write(KEYS[0], {"a": np.zeros(10, np.float32)})
    store.write(KEYS[1], {"a": np.zeros(2500, np.float32)})
    assert len(files_in(tmp_path)) == 1
    assert len(notices) == 1
    assert "no longer stored" in notices[0]
    assert "the limit is 1000" in notices[0]


def test_a_folder_that_is_a_file_is_told_of_once(tmp_path: Path) -> None:
    """A typical slip: the run goes on, and one sentence says what lies there."""
    (tmp_path / "kept").write_text("mine")
    store, notices = store_in(tmp_path / "kept")
    assert store.read(KEYS[0]) is None
    store.write(KEYS[0], ARRAYS)
    store.write(KEYS[1], ARRAYS)
    assert len(notices) == 1
    assert f"no longer stored in {tmp_path / 'kept'} (" in notices[0]


def test_a_full_disk_ends_the_keeping_not_the_run(tmp_path: Path) -> None:
    """One sentence, no part of a file left behind, and what is there is still read."""
    store, notices = store_in(tmp_path)
    store.write(KEYS[0], ARRAYS)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))  # a write beyond ends with an error of the system
    try:
        for key in KEYS[1:4]:
            store.write(key, {"a": np.zeros(2500, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(notices) == 1
    assert "embeddings are no longer stored in" in notices[0]
    assert "File too large" in notices[0]
    assert [path.name for path in files_in(tmp_path)] == [f"{KEYS[0]}.safetensors"]
    assert store.read(KEYS[0]) is not None


WRITER = """
import random, sys
from pathlib import Path
import numpy as np
from promptseg.runner.embedding_cache import EmbeddingStore
from promptseg.runner.options import CacheLimit
notices = []
store = EmbeddingStore(CacheLimit(Path(sys.argv[1]), int(sys.argv[2])), notices.append)
def arrays(i): return {"a": np.full(int(sys.argv[4]), i, np.float32)}
print("started", flush=True)
found = 0
for i in (random.randrange(12) for _ in range(12 * int(sys.argv[3]))):
    read = store.read(f"{i:064x}")
    if read is None:
        store.write(f"{i:064x}", arrays(i))
    else:
        found += 1
        assert np.array_equal(read["a"], arrays(i)["a"]), i
assert not notices, notices
print(found)
"""


def writer(folder: Path, limit: int, rounds: int, values: int) -> subprocess.Popen[str]:
    """Start a process that reads and writes twelve embeddings in random order, and checks what it reads."""
    arguments = [str(folder), str(limit), str(rounds), str(values)]
    return subprocess.Popen([sys.executable, "-c", WRITER, *arguments], stdout=subprocess.PIPE, text=True)


def test_processes_share_a_folder(tmp_path: Path) -> None:
    """Four at once, in a folder that holds half of what they write: each reads right values or nothing."""
    limit = 6 * 40_300
    processes = [writer(tmp_path, limit, rounds=40, values=10_000) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(int(output[1]) for output in outputs) > 0
    assert all(not path.name.startswith(".") for path in files_in(tmp_path))
    assert sum(path.stat().st_size for path in files_in(tmp_path)) <= limit + 4 * 40_300


def test_a_killed_writer_leaves_nothing_that_counts(tmp_path: Path) -> None:
    """After kill -9 every file is whole; what was being written is not read, and is removed when a day old."""
    process = writer(tmp_path, 10**9, rounds=10**6, values=2_000_000)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(timeout=30)
    process.stdout.close()
    left = tmp_path / "00" / f".{KEYS[3]}.safetensors.{'0' * 32}"  # as the kill leaves it, whenever it comes
    left.parent.mkdir(exist_ok=True)
    left.write_bytes(b"half")
    store, notices = store_in(tmp_path)
    found = [store.read(key) for key in KEYS[:12]]
    assert all(arrays is None or arrays["a"][0] == i for i, arrays in enumerate(found))
    assert notices == []
    os.utime(left, (0, 0))
    store.write(KEYS[13], ARRAYS)
    assert not left.exists()


# ---------------------------------------------------------------------------------------------- maps of features


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_maps_come_back_with_their_order_in_memory(memory_format: torch.memory_format) -> None:
    """Values and strides of each level, as an image of a batch has them, and of 2-D maps too."""
    torch.manual_seed(0)
    batch = torch.randn(2, 3, 4, 5).contiguous(memory_format=memory_format)
    maps = (batch[1], torch.randn(6, 7).t())
    again = unpacked(packed(maps), torch.device("cpu"))
    assert [m.stride() for m in again] == [m.stride() for m in maps]
    assert all(torch.equal(a, b) for a, b in zip(again, maps, strict=True))


# ---------------------------------------------------------------------------------------------- the model behind it


class Toy:
    """Embeds an image as its mean, and counts."""

    def __init__(self, fault: str = "") -> None:
        self.spec = SPEC
        self.fault = fault
        self.encoded = 0
        self.only_here = "seen"

    def embed(self, images: Sequence[Image]) -> list[float]:
        """Return means, or one too few."""
        self.encoded += len(images)
        means = [float(image.mean()) * (float("nan") if self.fault == "nan" else 1) for image in images]
        return means[1:] if self.fault == "count" else means

    def predict(self, requests: Sequence[Request]) -> list[Prediction]:
        """Answer with a mask that says the mean."""
        return [Prediction(np.full((1, 2, 2), r.embedding > 100)) for r in requests]

    def pack_embedding(self, embedding: float) -> dict[str, npt.NDArray[Any]]:
        """Return an array, or fail."""
        if self.fault == "pack":
            raise RuntimeError("no room in the bag")
        return {"mean": np.array([embedding])}

    def unpack_embedding(self, arrays: Mapping[str, npt.NDArray[Any]], image: Image) -> float:
        """Return the number, or fail."""
        return float(arrays["median" if self.fault == "unpack" else "mean"][0])


def grey(level: int) -> Image:
    """Return a small picture."""
    return np.full((4, 6, 3), level, dtype=np.uint8)


def test_only_images_that_are_not_known_are_encoded(tmp_path: Path) -> None:
    """Two of three are known: one is encoded, and all come in the order of the images."""
    store, _ = store_in(tmp_path)
    first, second = Toy(), Toy()
    CachedSegmenter(first, store, {}).embed([grey(1), grey(3)])
    assert CachedSegmenter(second, store, {}).embed([grey(3), grey(2), grey(1)]) == [3.0, 2.0, 1.0]
    assert (first.encoded, second.encoded) == (2, 1)


@pytest.mark.parametrize("other", ["pixels", "shape", "identity"])
def test_another_image_or_model_is_another_embedding(tmp_path: Path, other: str) -> None:
    """A pixel, a shape of the same bytes, or anything in the identity makes it a miss."""
    store, _ = store_in(tmp_path)
    CachedSegmenter(Toy(), store, {"dtype": "float32"}).embed([grey(5)])
    image = grey(5)
    if other == "pixels":
        image[3, 5, 2] = 6
    if other == "shape":
        image = image.reshape(6, 4, 3)
    model = Toy()
    identity = {"dtype": "bfloat16" if other == "identity" else "float32"}
    CachedSegmenter(model, store, identity).embed([image])
    assert model.encoded == 1


def test_a_model_with_a_wrong_number_of_embeddings_is_refused(tmp_path: Path) -> None:
    """Though the number of all might be right with those that are known."""
    store, _ = store_in(tmp_path)
    with pytest.raises(ModelError, match=r"'toy': embed\(\) returned 1 answers to 2"):
        CachedSegmenter(Toy("count"), store, {}).embed([grey(1), grey(2)])


@pytest.mark.parametrize("fault", ["pack", "unpack", "nan"])
def test_a_fault_of_a_plugin_costs_time_alone(tmp_path: Path, fault: str) -> None:
    """Packing that fails ends the keeping, unpacking that fails is a miss, NaN is not kept."""
    store, notices = store_in(tmp_path)
    model = Toy(fault)
    wrapped = CachedSegmenter(model, store, {})
    for _ in range(2):
        (found,) = wrapped.embed([grey(4)])
        assert found == 4.0 or fault == "nan"
    assert model.encoded == 2
    expected = {"pack": ["no room in the bag"], "unpack": ["unpack_embedding: KeyError('median')"], "nan": []}
    assert len(notices) == len(expected[fault]) + (fault == "pack")
    assert all(part in line for part, line in zip(expected[fault], notices, strict=False))


def test_the_wrapper_hides_nothing(tmp_path: Path) -> None:
    """Predictions, spec and whatever else a model offers are the model's."""
    model = Toy()
    wrapped = cached(model, store_in(tmp_path)[0], {}, pytest.fail)
    assert isinstance(wrapped, CachedSegmenter)
    assert (wrapped.spec, wrapped.only_here) == (model.spec, "seen")
    (prediction,) = wrapped.predict([Request(200.0, prompt_of("point", 4, 6))])
    assert prediction.masks.all()


@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real weights of minisam are not at {REAL}")
def test_a_real_model_answers_to_the_last_bit_as_without(tmp_path: Path) -> None:
    """Minisam's logits and predicted IoUs from kept embeddings equal those from its encoder, which is not asked."""
    files = {"encoder": REAL / "encoder.onnx", "onnx_decoder": REAL / "sam.onnx"}
    model = sam_onnx.load(minisam.SPEC, files, Runtime())
    store, notices = store_in(tmp_path)
    image = smooth_image(90, 120)
    wrapped = CachedSegmenter(model, store, {})
    (fresh,) = wrapped.embed([image])
    model._encoder = lambda batch: pytest.fail("encoded again")
    (kept,) = wrapped.embed([image])
    for kind in ("point", "points", "box"):
        prompt = prompt_of(kind, 90, 120)
        for a, b in zip(model.low_res([Request(fresh, prompt)]), model.low_res([Request(kept, prompt)]), strict=True):
            assert torch.equal(a, b)
    assert notices == []


# ---------------------------------------------------------------------------------------------- whole runs

TINY_SAM = """
import torch
from adapters import note
from promptseg.models.sam._segmenter import SamSegmenter
from promptseg.models.sam._decoder import OfficialDecoder, empty_modules

def load(spec, files, runtime):
    torch.manual_seed(spec.options.get("seed", 0))
    modules = empty_modules(64).eval().requires_grad_(False)
    torch.nn.init.normal_(modules["mask_decoder"].output_upscaling[3].weight, std=1.0)
    conv = torch.nn.Conv2d(3, 256, 16, 16).requires_grad_(False)
    def encode(batch):
        note(call="embed", n=len(batch))
        return (conv(batch),)
    decoder = OfficialDecoder(modules["prompt_encoder"], modules["mask_decoder"])
    return SamSegmenter(spec, encode, decoder, runtime, side=64)
"""


@pytest.fixture
def tiny(project: Project) -> Project:
    """Return a project of four images whose model ``tiny`` is a SAM of random weights that writes its calls down."""
    for path in project.pytester.path.glob("squares/*/case_0[4-9].png"):
        path.unlink()
    project.pytester.makepyfile(tiny_sam=TINY_SAM)
    project.configure('[models.tiny]\nadapter = "tiny_sam:load"\n')
    return project


def test_another_mode_needs_no_encoder_and_scores_are_the_same(tiny: Project) -> None:
    """Images are encoded once for both runs; rows and fingerprints equal those of a run without, bit for bit."""
    chosen = ("--seg-models", "tiny", "--seg-tasks", "squares", "--seg-modes")
    keep = ("--seg-embedding-cache", "kept")
    tiny.means(*chosen, "box_all", *keep, "--seg-results", "with")
    assert len(tiny.calls("embed")) == 4
    tiny.means(*chosen, "point_each,clicks_first", *keep, "--seg-results", "with")
    assert tiny.calls("embed") == []
    tiny.means(*chosen, "box_all,point_each,clicks_first", "--seg-results", "without")
    assert len(tiny.calls("embed")) == 4
    for mode in ("box_all", "point_each", "clicks_first"):
        ours, plain = (
            read_parquet(tiny.pytester.path / folder / "tiny" / "squares" / f"{mode}.parquet")
            for folder in ("with", "without")
        )
        assert ours.fingerprint == plain.fingerprint
        assert len(ours.rows) == (36 if mode == "clicks_first" else 4)
        numbers = [[(r.prompts, r.iou_first, r.iou_confident, r.predicted_iou) for r in x.rows] for x in (ours, plain)]
        assert numbers[0] == numbers[1]
    tiny.configure('[models.tiny]\nadapter = "tiny_sam:load"\noptions = {seed = 1}\n')  # another model
    tiny.means(*chosen, "box_all", *keep, "--seg-limit", "2")
    assert len(tiny.calls("embed")) == 2


def test_a_model_without_embeddings_runs_without(project: Project) -> None:
    """It is scored as ever, a note says so, and nothing is written."""
    run = ("--seg-models", "bright", "--seg-tasks", "squares", "--seg-modes", "box_all")
    result = project.run(*run, "--seg-embedding-cache", "kept,1GB", code=0)
    result.stdout.fnmatch_lines(["note: --seg-embedding-cache: bright has no embeddings that can be stored*"])
    assert not (project.pytester.path / "kept").exists()
