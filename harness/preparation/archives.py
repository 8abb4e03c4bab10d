"""Read zip and tar archives in place: from any number of threads, without unpacking them to disk.

An archive comes from elsewhere and is not trusted. It is refused as a whole, with an `IntegrityError` that names the
member, if a name or a link leads out of it, if it is encrypted or was cut, or if a member claims to be larger than any
medical image: more than 8 GiB, or more than 1 GiB and 200 times its stored bytes. (Smaller members may well be packed a
thousandfold: the mask of a whole body is mostly zeros.)
"""

from __future__ import annotations

import contextlib
import functools
import io
import posixpath
import re
import shutil
import stat
import struct
import tarfile
import threading
import uuid
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

from promptseg.errors import IntegrityError
from promptseg.files.cache import disk_space, scratch
from promptseg.preparation.extras import library

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, tarfile.TarError)  # what a damaged member may raise

_MOST_BYTES = 8 << 30
_UNSUSPECTED_BYTES = 1 << 30
_MOST_RATIO = 200
_MOST_LINK = 4096
_KEPT_STRETCHES = 8
_BLOCK = 512  # of a tar
_ZIP_HEADER = 30  # bytes in front of the name of a zip's member
_AGAIN = "Fetch it again."
_UNSUPPORTED = {
    b"BZh": "bzip2",
    b"\xfd7zXZ\0": "xz",
    b"7z\xbc\xaf\x27\x1c": "7z",
    b"Rar!\x1a\x07": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


class Blob(Protocol):
    """Bytes that can be read at any place, by several threads at once.

    Attributes:
        size: number of bytes.
        packed: number of bytes that they take in storage.
        identity: changes on this machine when the bytes change.
    """

    @property
    def size(self) -> int: ...  # noqa: D102
    @property
    def packed(self) -> int: ...  # noqa: D102
    @property
    def identity(self) -> str: ...  # noqa: D102

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on; fewer at the end."""


@dataclass(frozen=True)
class FileBlob:
    """A file; opened for each read, so that thousands of archives need no more handles than there are threads."""

    path: Path
    size: int
    identity: str

    @classmethod
    def of(cls, path: Path) -> FileBlob:
        """Return the file at ``path``, known by its size and time. Raises `OSError`."""
        status = path.stat()
        return cls(path, status.st_size, f"{status.st_size}-{status.st_mtime_ns}")

    @property
    def packed(self) -> int:
        """The size."""
        return self.size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on."""
        with self.path.open("rb") as file:
            file.seek(offset)
            return file.read(size)


@dataclass(frozen=True)
class Part:
    """A stretch of another blob."""

    whole: Blob
    offset: int
    size: int
    identity: str

    @property
    def packed(self) -> int:
        """The size, or that of the whole in storage if it is less."""
        return min(self.size, self.whole.packed)

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on."""
        return self.whole.read_at(self.offset + offset, max(0, min(size, self.size - offset)))


class GzipBlob:
    """What is in a gzip file, by an index of places at which unpacking can begin; its checksum is verified.

    The last few stretches that were unpacked are kept: threads that read the members in order, more or less, then
    unpack every stretch once.
    """

    def __init__(self, source: Blob) -> None:
        spacing = max(1 << 20, source.packed >> 11)  # an index of at most some thousand windows of 32 KiB
        self._file = library("indexed_gzip").IndexedGzipFile(fileobj=opened(source), spacing=spacing)
        self._lock = threading.Lock()
        self._stretch = max(spacing, 4 << 20)
        self._unpacked = functools.lru_cache(_KEPT_STRETCHES)(self._unpack)
        self.packed = source.packed
        self.identity = source.identity
        self._file.build_full_index()
        self.size = int(self._file.seek(0, io.SEEK_END))

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``offset`` on."""
        end = min(offset + size, self.size)
        starts = range(offset - offset % self._stretch, end, self._stretch)
        parts = []
        for start in starts:
            with self._lock:
                stretch = self._unpacked(start)
            parts.append(stretch[max(0, offset - start) : end - start])
        return b"".join(parts)

    def _unpack(self, start: int) -> bytes:
        return bytes(self._file.pread(self._stretch, start))


class _Reader(io.RawIOBase):
    """A blob as a file object with a place of its own."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._blob.size}[whence]
        self._at = max(0, start + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._blob.read_at(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def opened(blob: Blob) -> IO[bytes]:
    """Return a blob as a file object, for one thread."""
    return io.BufferedReader(_Reader(blob), 1 << 16)


@dataclass(frozen=True)
class Member:
    """A file in a folder or archive.

    Attributes:
        path: POSIX path inside of it.
        size: bytes, unpacked.
        packed: bytes that it takes where it is stored.
        identity: changes on this machine when the member changes.
        read: returns its content; raises one of `DAMAGE`.
        locate: returns its content as a blob, in a scratch file where it is packed.
    """

    path: str
    size: int
    packed: int
    identity: str
    read: Callable[[], bytes]
    locate: Callable[[Spool], Blob]


@dataclass(frozen=True)
class Spool:
    """Scratch files for packed archives in archives; they are gone when ``stack`` is closed."""

    stack: contextlib.ExitStack
    folders: list[Path] = field(default_factory=list)

    def keep(self, source: IO[bytes], name: str) -> Path:
        """Copy a stream to a scratch file. Raises `UnavailableError` where the disk is full."""
        if not self.folders:
            self.folders.append(self.stack.enter_context(scratch()))
        path = self.folders[0] / uuid.uuid4().hex
        with disk_space(name), path.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
        return path


def whole(blob: Blob) -> bytes:
    """Return all bytes of a blob. Raises `EOFError` where it is shorter than it should be."""
    data = blob.read_at(0, blob.size)
    if len(data) != blob.size:
        raise EOFError(f"it ends after {len(data)} of {blob.size} bytes")
    return data


def located(path: str, blob: Blob) -> Member:
    """Return a blob as a member."""
    return Member(path, blob.size, blob.packed, blob.identity, lambda: whole(blob), lambda _: blob)


def members_of(blob: Blob, name: str) -> Iterator[Member]:
    """Yield the files in an archive, ``name`` for messages.

    Raises:
        IntegrityError: it is no zip, tar or tar.gz, was cut, is encrypted, or has a member that is refused.
    """
    head = blob.read_at(0, _BLOCK)
    if head.startswith((b"PK\3\4", b"PK\5\6", b"PK\7\x08")):
        return _zip_members(blob, name)
    if head.startswith(b"\x1f\x8b"):
        return _tar_members(_unzipped_tar(blob, name), name)
    if _is_tar(head):
        return _tar_members(blob, name)
    for magic, kind in _UNSUPPORTED.items():
        if head.startswith(magic):
            raise IntegrityError(f"{name} is packed by {kind}, which is not read here: unpack it and give the folder.")
    raise IntegrityError(f"{name} is not a zip, tar or tar.gz archive: it {_looks_like(head)}. {_AGAIN}")


def _is_tar(head: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True


def _looks_like(head: bytes) -> str:
    if not head:
        return "is empty"
    if head.lstrip()[:1] == b"<":
        return "begins like a web page, as a download without a log-in often gives"
    return f"begins with {head[:8]!r}"


def _unzipped_tar(blob: Blob, name: str) -> Blob:
    try:
        unzipped = GzipBlob(blob)
    except OSError as error:
        raise IntegrityError(
            f"{name} was cut or is damaged: its {blob.size} bytes are no whole gzip file ({error}). {_AGAIN}"
        ) from error
    if not _is_tar(unzipped.read_at(0, _BLOCK)):
        raise IntegrityError(f"{name} is one file packed by gzip, not a tar.gz archive: give the folder that it is in.")
    return unzipped


# names and sizes


def _safe(path: str, name: str) -> str:
    """Return the path of a member, in normal form."""
    parts = path.replace("\\", "/").split("/")
    if not parts[0] and len(parts) > 1:
        raise _refused(name, path, "has an absolute path")
    if re.match("[A-Za-z]:", path):
        raise _refused(name, path, "has a path with a drive letter")
    if ".." in parts:
        raise _refused(name, path, "has a path that leads out of the archive")
    return "/".join(part for part in parts if part not in ("", "."))


def _safe_target(path: str, target: str, name: str) -> str:
    """Return the path that a symbolic link points to."""
    resolved = posixpath.normpath(posixpath.join(posixpath.dirname(path), target.replace("\\", "/")))
    if resolved.startswith(("/", "..")) or re.match("[A-Za-z]:", target):
        raise _refused(name, path, f"is a link that leads out of the archive, to {target!r}")
    return resolved


def _refused(name: str, path: str, problem: str) -> IntegrityError:
    return IntegrityError(
        f"{name}: the member {path!r} {problem}, so nothing of this archive is used. Fetch it from its owners; if it "
        "is as they publish it, unpack it yourself and give the folder."
    )


def _check_size(path: str, size: int, packed: int, name: str) -> None:
    """Raise `IntegrityError` for what may be a bomb; archives in archives are not read whole, and may be large."""
    if size > _MOST_BYTES and not path.lower().endswith(SUFFIXES):
        raise _refused(name, path, f"claims {size} bytes, more than the {_MOST_BYTES} that one file may have")
    if size > max(_UNSUSPECTED_BYTES, _MOST_RATIO * packed):
        raise _refused(name, path, f"claims {size} bytes unpacked from {packed}, more than {_MOST_RATIO} times as many")


# zip


def _zip_members(blob: Blob, name: str) -> Iterator[Member]:
    archive = _zip(blob, name)
    for info in archive.infolist():
        path = _safe(info.orig_filename.partition("\0")[0], name)
        _check_packing(info, name)
        _check_size(path, info.file_size, info.compress_size, name)
        if stat.S_ISLNK(info.external_attr >> 16):
            yield from _zip_link(archive, info, path, name)
        elif not info.orig_filename.endswith(("/", "\\")):
            yield _zip_member(blob, archive, info, path)


def _zip(blob: Blob, name: str) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(opened(blob))
    except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError) as error:
        raise IntegrityError(
            f"{name} was cut or is damaged: it begins like a zip, but its {blob.size} bytes do not end with the list "
            f"of its members ({error}). {_AGAIN} Of a zip in several parts, join the parts first."
        ) from error


def _check_packing(info: zipfile.ZipInfo, name: str) -> None:
    if info.flag_bits & 1:
        raise IntegrityError(f"{name} is encrypted: unpack it with its password and give the folder.")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise IntegrityError(
            f"{name}: the member {info.filename!r} is packed by the zip method {info.compress_type}, which is "
            "not read here: unpack the archive and give the folder."
        )


def _zip_link(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str, name: str) -> Iterator[Member]:
    """Yield what a symbolic link points to, under the name of the link; nothing where it is no file."""
    with archive.open(info) as file:
        target = _safe_target(path, file.read(_MOST_LINK).decode("utf-8", "surrogateescape"), name)
    with contextlib.suppress(KeyError):
        yield _zip_member(None, archive, archive.getinfo(target), path)


def _zip_member(blob: Blob | None, archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> Member:
    identity = f"{info.CRC:08x}-{info.file_size}"

    def locate(spool: Spool) -> Blob:
        if blob is not None and info.compress_type == zipfile.ZIP_STORED:
            return Part(blob, _data_offset(blob, info), info.file_size, identity)
        with archive.open(info) as file:
            return FileBlob(spool.keep(file, path), info.file_size, identity)

    return Member(path, info.file_size, info.compress_size, identity, lambda: archive.read(info), locate)


def _data_offset(blob: Blob, info: zipfile.ZipInfo) -> int:
    """Return the offset of a member's bytes: behind a header whose last two fields give the lengths of what follows."""
    name_size, extra_size = struct.unpack("<HH", blob.read_at(info.header_offset + _ZIP_HEADER - 4, 4))
    return int(info.header_offset + _ZIP_HEADER + name_size + extra_size)


# tar


def _tar_members(blob: Blob, name: str) -> Iterator[Member]:
    infos = _tar_infos(blob, name)
    files = {_safe(info.name, name): info for info in infos if info.isreg()}
    for info in infos:
        path = _safe(info.name, name)
        if info.isdir():
            continue
        target = files.get(_tar_target(info, path, name)) if info.islnk() or info.issym() else info
        if target is not None:  # a link to a folder, or to nothing, is passed over
            yield _tar_member(blob, target, path, name)


def _tar_infos(blob: Blob, name: str) -> list[tarfile.TarInfo]:
    """Return the members; tarfile itself says nothing where a list breaks off before its closing block of zeros."""
    try:
        with tarfile.open(fileobj=opened(blob), mode="r:") as archive:
            infos = archive.getmembers()
            end = archive.offset
    except DAMAGE as error:
        raise IntegrityError(
            f"{name} was cut or is damaged: its {blob.size} bytes end inside of a member ({error}). {_AGAIN}"
        ) from error
    if blob.read_at(end, _BLOCK) != bytes(_BLOCK):
        raise IntegrityError(
            f"{name} was cut or is damaged: after {len(infos)} members, at byte {end} of {blob.size}, there is neither "
            f"another one nor the end mark of a tar. {_AGAIN}"
        )
    return infos


def _tar_target(info: tarfile.TarInfo, path: str, name: str) -> str:
    return _safe(info.linkname, name) if info.islnk() else _safe_target(path, info.linkname, name)


def _tar_member(blob: Blob, info: tarfile.TarInfo, path: str, name: str) -> Member:
    if not info.isreg() or info.issparse():
        raise _refused(name, path, "is a device or a sparse file")
    _check_size(path, info.size, blob.packed, name)
    identity = f"{blob.identity}+{info.offset_data}-{info.size}"
    return located(path, Part(blob, info.offset_data, info.size, identity))
