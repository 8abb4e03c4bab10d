"""What a file of weights is, by its bytes: looked at before anything of it is loaded or allocated."""

from __future__ import annotations

import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

from promptseg.errors import IntegrityError
from promptseg.models._pickles import is_legacy
from promptseg.specs import ModelSpec
from promptseg.text import human_size, listed, printable

_HEAD = 512  # bytes that are looked at
_SHARD = re.compile(r"(.*?)[-_.](\d{1,5})-of-(\d{1,5})(\.[a-z]+)", re.IGNORECASE)
_MAX_HEADER = 100_000_000  # bytes; as the library safetensors
_SHOWN = 4
SAVE = 'torch.save(model.state_dict(), "weights.pth")'


class Problem(NamedTuple):
    """Why a file cannot be used.

    Attributes:
        what: what it is, as it follows the file's name in a sentence.
        remedy: what its owner can do, a sentence.
        lost: whether the content went missing on its way here, so that fetching it anew helps.
    """

    what: str
    remedy: str
    lost: bool = False


_UNPACK = "Unpack it and name the file of weights that is in it"
_ARCHIVES = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
}
_OTHERS = {
    (0, b"\x89HDF\r\n\x1a\n"): "an HDF5 file, as Keras and TensorFlow write weights",
    (0, b"\x93NUMPY"): "a NumPy array",
    (0, b"GGUF"): "a GGUF file of quantised weights",
    (4, b"TFL3"): "a TensorFlow Lite model",
}


def refuse(spec: ModelSpec, path: Path, problem: Problem) -> IntegrityError:
    """Return the error for a file of a model; the remedy depends on whether promptseg fetched the file itself."""
    fetched = spec.origin is not None and spec.origin.host != "local"
    again = f"Remove {path.resolve()} and run `promptseg pull {spec.name}`, which fetches it again"
    remedy = again if problem.lost and fetched else problem.remedy
    return IntegrityError(f"model {spec.name}: {path} {problem.what}. {remedy}.")


def check_weights(spec: ModelSpec, path: Path) -> None:
    """Raise `IntegrityError` unless a file is safetensors or of torch.save, whole, and claims no more than it holds."""
    problem = problem_of_any(path) or _problem_of_shard(path) or _problem_of_weights(path)
    if problem:
        raise refuse(spec, path, problem)


def check_onnx(spec: ModelSpec, path: Path) -> None:
    """Raise `IntegrityError` for a file that is certainly no ONNX model."""
    problem = problem_of_any(path)
    if not problem and not _is_onnx(_head(path)) and (is_safetensors(path) or _is_of_torch(path)):
        problem = Problem(
            "holds weights alone, not an ONNX graph", "Export the model with torch.onnx and name that file"
        )
    if problem:
        raise refuse(spec, path, problem)


def unusable_onnx(reader: str, error: Exception) -> Problem:
    """Return that a library cannot use an ONNX file."""
    reason = printable(str(error).strip() or type(error).__name__).splitlines()[0]
    return Problem(
        f"is no ONNX file that {reader} can use ({reason})", "Export the model again, or copy it whole", lost=True
    )


def problem_of_any(path: Path) -> Problem | None:
    """Return what is wrong with a file whatever it should be: nothing in it, a stand-in, a page, an archive."""
    head = _head(path)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if not head:
        return Problem("is empty (0 bytes)", "Copy it again from where it is whole", lost=True)
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        return _git_lfs(head)
    if text.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return Problem(
            "is a web page, not the file: what was saved is an error, a login or a preview",
            "Open it in a browser to see what it says, and download the file itself (its raw form)",
            lost=True,
        )
    archive = next((name for magic, name in _ARCHIVES.items() if head.startswith(magic)), None)
    if archive or head[257:262] == b"ustar":
        return Problem(f"is {archive or 'a tar archive'}, not the file that was packed into it", _UNPACK)
    return None


def _git_lfs(head: bytes) -> Problem:
    found = re.search(rb"size (\d+)", head)
    size = f" for {human_size(int(found[1]))}" if found else ""
    return Problem(
        f"is a Git LFS pointer{size}, not the file itself",
        "Run `git lfs pull` in the repository that it is from, or download the file itself",
        lost=True,
    )


def _problem_of_shard(path: Path) -> Problem | None:
    """Return that a checkpoint is one of several, or the index of them. The name of a part gives its number."""
    merge = 'Merge them into one: load the model as you do, then `model.save_pretrained(FOLDER, max_shard_size="1TB")`'
    found = _SHARD.fullmatch(path.name)
    if found and int(found[3]) > 1:
        parts = [f"{found[1]}-{i:0{len(found[2])}}-of-{found[3]}{found[4]}" for i in range(1, int(found[3]) + 1)]
        return Problem(f"is one of {int(found[3])} parts of a sharded checkpoint{_missing(path, parts)}", merge)
    if _head(path).lstrip()[:1] != b"{" or path.stat().st_size > _MAX_HEADER:
        return None
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return None
    if isinstance(content, dict) and isinstance(content.get("weight_map"), dict):
        parts = sorted({str(part) for part in content["weight_map"].values()})
        return Problem(f"is the index of a checkpoint in {len(parts)} parts{_missing(path, parts)}", merge)
    return Problem(
        f"is JSON, not weights (it begins with {_quoted(_head(path))})",
        "Name the file of weights as the checkpoint; if this is an error message, download the file itself",
    )


def _missing(path: Path, parts: list[str]) -> str:
    missing = [part for part in parts if not (path.parent / part).is_file()]
    return f", of which {_some(missing)} {'is' if len(missing) == 1 else 'are'} not beside it" if missing else ""


def _problem_of_weights(path: Path) -> Problem | None:
    head = _head(path)
    if head.startswith(b"PK"):
        return _problem_of_zip(path)
    if is_safetensors(path):
        return _problem_of_safetensors(path)
    if is_legacy(path):
        return None
    other = next((name for (at, magic), name in _OTHERS.items() if head[at:].startswith(magic)), None)
    if _is_onnx(head):
        other = "an ONNX graph"
    if other:
        advice = "use the adapter sam_onnx, or " if _is_onnx(head) else ""
        return Problem(
            f"is {other}, not weights of torch", f"To use this model, {advice}convert it to a torch state_dict"
        )
    if head[:1] == b"\x80":
        return Problem("is a plain pickle, not a file of torch.save", f"Save it anew by {SAVE}")
    return Problem(
        f"is neither safetensors nor a file of torch.save (it begins with {_quoted(head)})",
        "Look at what it is, and name the file of weights",
        lost=True,
    )


def _problem_of_zip(path: Path) -> Problem | None:
    size = path.stat().st_size
    if not zipfile.is_zipfile(path):
        return _truncated(f"is cut short ({human_size(size)}): the table of contents at its end is missing")
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError) as error:
        return _truncated(f"is damaged ({error})")
    names = [member.filename for member in members]
    inner = {name.partition("/")[2] or name for name in names}
    if "constants.pkl" in inner or any(name.startswith("code/") for name in inner):
        return Problem(
            "is a TorchScript archive, which holds a program and not a state_dict",
            f'Save its weights alone: `torch.save(torch.jit.load("{path.name}").state_dict(), "weights.pth")`',
        )
    if "data.pkl" not in inner:
        return Problem(
            f"is a zip archive ({_some(sorted(names)) or 'empty'}), not the file that was packed into it", _UNPACK
        )
    return _claims(sum(member.file_size for member in members), size)


def _claims(claimed: int, size: int) -> Problem | None:
    if claimed <= size:
        return None
    return Problem(
        f"claims {human_size(claimed)} of content in a file of {human_size(size)}; nothing of it was loaded",
        f"Weights are not stored like that: get the file from who made it, saved by {SAVE}",
    )


def _truncated(what: str) -> Problem:
    return Problem(what, "Copy or download it again from where it is whole, and compare the sizes", lost=True)


def _problem_of_safetensors(path: Path) -> Problem | None:
    size = path.stat().st_size
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > min(size - 8, _MAX_HEADER):
            return _truncated(f"is cut short: its header has {human_size(length)}, the file {human_size(size)}")
        try:
            end = max((_end(entry) for entry in json.loads(file.read(length)).values()), default=0)
        except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError):
            return _truncated("begins as safetensors do, but its header is damaged")
    if 8 + length + end > size:
        return _truncated(
            f"is cut short: its header lists {human_size(8 + length + end)}, the file has {human_size(size)}"
        )
    return None


def _end(entry: dict[str, Any]) -> int:
    """Return where a tensor of a header ends; the metadata of a file have no tensor."""
    return int(entry["data_offsets"][1]) if "data_offsets" in entry else 0


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as safetensors do: eight bytes of length, then JSON."""
    return _head(path)[8:9] == b"{"


def _is_of_torch(path: Path) -> bool:
    return _head(path).startswith(b"PK") or is_legacy(path)


def _is_onnx(head: bytes) -> bool:
    """Whether a file begins as ONNX does: its version, then the name of what produced it or another string."""
    return (
        head[:1] == b"\x08"
        and 0 < (head[1:2] or b"\0")[0] < 32
        and head[2:3] in (b"\x12", b"\x1a", b"\x22", b"\x3a", b"\x42")
    )


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEAD)


def _quoted(head: bytes) -> str:
    return repr(printable(head[:24].decode("latin-1")))


def _some(names: list[str]) -> str:
    return printable(listed(names, _SHOWN))
