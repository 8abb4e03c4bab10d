"""Folders and archives are one tree of files, and archives that cannot be trusted are refused."""

from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from promptseg.errors import CaseError, IntegrityError, UnavailableError
from promptseg.preparation import archives
from promptseg.preparation.tree import open_tree

FILES = {"a/1.png": b"one" * 5000, "a/2.png": bytes(range(256)) * 40, "b.txt": b"", "Z/last": b"z"}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Scratch files lie in a cache of the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PROMPTSEG_CACHE", str(folder))
    return folder


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def tarred(files: Mapping[str, bytes | tarfile.TarInfo], mode: str = "w") -> bytes:
    """Return a tar (``w``) or tar.gz (``w:gz``) of files, or of members without content."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, data in files.items():
            info = data if isinstance(data, tarfile.TarInfo) else tarfile.TarInfo(name)
            info.size = 0 if isinstance(data, tarfile.TarInfo) else len(data)
            archive.addfile(info, None if isinstance(data, tarfile.TarInfo) else io.BytesIO(data))
    return buffer.getvalue()


def linked(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    """Return a link as member of a tar."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def make(folder: Path, kind: str) -> Path:
    """Write `FILES` as a folder or an archive."""
    path = folder / f"set{kind}"
    if kind == "":
        for name, data in FILES.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    else:
        path.write_bytes(zipped(FILES) if kind == ".zip" else tarred(FILES, "w" if kind == ".tar" else "w:gz"))
    return path


def content(source: Path) -> dict[str, bytes]:
    """Return all files of a tree."""
    with open_tree(source) as tree:
        return {path: tree.read(path) for path in tree.paths()}


def refusal(tmp_path: Path, data: bytes, name: str = "set.zip") -> str:
    """Return the message with which an archive is refused as a whole."""
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(IntegrityError) as caught, open_tree(path):
        pass
    assert str(path) in str(caught.value)
    return str(caught.value)


# what a tree shows


@pytest.mark.parametrize("kind", ["", ".zip", ".tar", ".tar.gz", ".tgz"])
def test_every_kind_of_source_is_the_same_tree(tmp_path: Path, kind: str) -> None:
    """Paths are sorted POSIX paths, contents are the files', whatever holds them."""
    source = make(tmp_path, kind)
    with open_tree(source) as tree:
        assert tree.name == str(source)
        assert list(tree.paths()) == ["Z/last", "a/1.png", "a/2.png", "b.txt"]
    assert content(source) == FILES


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("outer", ["zip", "tar", "tar.gz", "folder"])
def test_archives_in_archives_are_folders(tmp_path: Path, cache: Path, outer: str, method: int) -> None:
    """Members stand below the archive's name; only packed ones are spooled, and scratch files go away."""
    inner = {"d/in.zip": zipped(FILES, method), "d/in.tgz": tarred(FILES, "w:gz"), "d/in.TAR": tarred(FILES)}
    if outer == "folder":
        (tmp_path / "out/d").mkdir(parents=True)
        for name, data in inner.items():
            (tmp_path / "out" / name).write_bytes(data)
    else:
        made = {"zip": zipped(inner, method), "tar": tarred(inner), "tar.gz": tarred(inner, "w:gz")}
        (tmp_path / "out").write_bytes(made[outer])
    with open_tree(tmp_path / "out") as tree:
        expected = {f"{name}/{path}": data for name in inner for path, data in FILES.items()}
        assert {path: tree.read(path) for path in tree.paths()} == expected
        spooled = [path for path in cache.rglob("*") if path.is_file()]
        assert len(spooled) == (3 if outer == "zip" and method == zipfile.ZIP_DEFLATED else 0)
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_what_systems_leave_behind_is_passed_over(tmp_path: Path) -> None:
    """Hidden files, macOS resource forks and thumbnails are no files of a data set; hidden archives are not opened."""
    junk = [".DS_Store", "a/._1.png", ".git/x", "__MACOSX/a/1.png", "a/Thumbs.db", ".hidden.zip"]
    (tmp_path / "set.zip").write_bytes(zipped({**FILES, **dict.fromkeys(junk, b"x")}))
    assert content(tmp_path) == {f"set.zip/{path}": data for path, data in FILES.items()}


def test_links_inside_are_followed(tmp_path: Path) -> None:
    """Links of a tar or zip to its own files have their content; links of a folder are its owner's own affair."""
    links = [linked("hard", "a/1.png", tarfile.LNKTYPE), linked("b", "a"), linked("c/soft", "../a/1.png")]
    (tmp_path / "set.tar").write_bytes(tarred({"a/1.png": b"one", **{link.name: link for link in links}}))
    assert content(tmp_path / "set.tar") == {"a/1.png": b"one", "hard": b"one", "c/soft": b"one"}
    info = zipfile.ZipInfo("c/soft")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a/1.png", b"one")
        archive.writestr(info, b"../a/1.png")
    assert content(tmp_path / "set.zip") == {"a/1.png": b"one", "c/soft": b"one"}
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/outside").symlink_to(tmp_path / "set.tar")
    (tmp_path / "folder/round").symlink_to(tmp_path / "folder", target_is_directory=True)
    assert set(content(tmp_path / "folder")) == {"outside"}


def test_backslashes_are_slashes(tmp_path: Path) -> None:
    """Some Windows programs write them into a zip, against its specification; folders among them are no files."""
    (tmp_path / "set.zip").write_bytes(zipped({"a\\1.png": b"one", "b\\": b""}))
    assert content(tmp_path / "set.zip") == {"a/1.png": b"one"}


@pytest.mark.parametrize("kind", [".zip", ".tar", ".tar.gz"])
def test_many_threads_read_at_once(tmp_path: Path, kind: str) -> None:
    """Threads do not move each other's place in the file."""
    rng = np.random.default_rng(1)
    files = {f"{i:03}": rng.bytes(int(rng.integers(1, 60_000))) for i in range(60)}
    data = zipped(files) if kind == ".zip" else tarred(files, "w:gz" if kind == ".tar.gz" else "w")
    (tmp_path / f"set{kind}").write_bytes(data)
    with open_tree(tmp_path / f"set{kind}") as tree, ThreadPoolExecutor(8) as pool:
        paths = [path for _ in range(5) for path in sorted(files, reverse=True)]
        assert all(data == files[path] for path, data in zip(paths, pool.map(tree.read, paths), strict=True))


def test_large_members_of_a_tar_gz_are_whole(tmp_path: Path) -> None:
    """A member that goes over several of the stretches that are unpacked at once, and one behind it."""
    files = {"large": np.random.default_rng(1).bytes(9_000_001), "small": b"behind"}
    (tmp_path / "set.tgz").write_bytes(tarred(files, "w:gz"))
    assert content(tmp_path / "set.tgz") == files


@pytest.mark.parametrize("kind", ["", ".zip", ".tar", ".tar.gz"])
def test_identity_tells_whether_a_file_changed(tmp_path: Path, kind: str) -> None:
    """It stays from one opening to the next, differs between files, and changes with the content."""
    source = make(tmp_path, kind)
    with open_tree(source) as tree:
        first = {path: tree.identity(path) for path in tree.paths()}
    with open_tree(source) as tree:
        assert {path: tree.identity(path) for path in tree.paths()} == first
    assert first["a/1.png"] != first["a/2.png"]
    changed = {**FILES, "a/1.png": b"two" * 5000}
    if kind == "":
        (source / "a/1.png").write_bytes(changed["a/1.png"])
        os.utime(source / "a/1.png", ns=(1, 1))
    else:
        source.write_bytes(zipped(changed) if kind == ".zip" else tarred(changed, "w:gz" if "gz" in kind else "w"))
        os.utime(source, ns=(1, 1))
    with open_tree(source) as tree:
        assert tree.identity("a/1.png") != first["a/1.png"]


# what is refused


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        ("../evil", "has a path that leads out of the archive"),
        ("a/../../evil", "has a path that leads out of the archive"),
        ("a\\..\\evil", "has a path that leads out of the archive"),
        ("/etc/evil", "has an absolute path"),
        ("\\evil", "has an absolute path"),
        ("C:\\evil", "has a path with a drive letter"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_paths_that_lead_out_refuse_the_archive(tmp_path: Path, kind: str, member: str, problem: str) -> None:
    """The member is named, and nothing of the archive is used."""
    files = {**FILES, member: b"x"}
    data = zipped(files) if kind == "zip" else tarred(files, "w:gz" if kind == "tar.gz" else "w")
    message = refusal(tmp_path, data, f"set.{kind}")
    assert f"the member {member!r} {problem}, so nothing of this archive is used." in message


@pytest.mark.parametrize("target", ["../../etc/passwd", "/etc/passwd", "C:/x"])
def test_links_that_lead_out_refuse_the_archive(tmp_path: Path, target: str) -> None:
    """Symbolic links of tar and zip, and hard links."""
    message = refusal(tmp_path, tarred({"a/link": linked("a/link", target)}), "set.tar")
    assert f"the member 'a/link' is a link that leads out of the archive, to {target!r}" in message
    info = zipfile.ZipInfo("a/link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(info, target)
    assert "the member 'a/link' is a link that leads out of the archive" in refusal(tmp_path, buffer.getvalue())
    hard = refusal(tmp_path, tarred({"a/link": linked("a/link", target, tarfile.LNKTYPE)}), "set.tar")
    assert "so nothing of this archive is used" in hard


def test_devices_refuse_the_archive(tmp_path: Path) -> None:
    """A data set holds files."""
    message = refusal(tmp_path, tarred({"null": linked("null", "", tarfile.CHRTYPE)}), "set.tar")
    assert "the member 'null' is a device or a sparse file" in message


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
def test_a_zip_that_was_cut(tmp_path: Path, share: float) -> None:
    """The list of members lies at the end, so even a small loss is noticed at once."""
    data = zipped(FILES)
    message = refusal(tmp_path, data[: int(len(data) * share)])
    assert f"was cut or is damaged: it begins like a zip, but its {int(len(data) * share)} bytes" in message
    assert "Fetch it again." in message


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_tar_that_was_cut(tmp_path: Path, share: float) -> None:
    """Inside of a member."""
    data = tarred(FILES)
    message = refusal(tmp_path, data[: int(len(data) * share)], "set.tar")
    assert f"was cut or is damaged: its {int(len(data) * share)} bytes end inside of a member" in message


def test_a_tar_that_was_cut_between_members(tmp_path: Path) -> None:
    """Python's own tarfile takes this for a whole archive of fewer members."""
    data = tarred({"1": b"x" * 512, "2": b"y" * 512})
    with tarfile.open(fileobj=io.BytesIO(data[:1024])) as archive:
        assert len(archive.getmembers()) == 1
    message = refusal(tmp_path, data[:1024], "set.tar")
    assert "after 1 members, at byte 1024 of 1024, there is neither another one nor the end mark" in message


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9, 0.999])
def test_a_tar_gz_that_was_cut(tmp_path: Path, share: float) -> None:
    """Wherever it was cut, it is noticed when it is opened."""
    data = tarred({f"{i}": np.random.default_rng(i).bytes(9000) for i in range(40)}, "w:gz")
    message = refusal(tmp_path, data[: int(len(data) * share)], "set.tar.gz")
    assert "was cut or is damaged" in message
    assert "Fetch it again." in message


def test_a_tar_gz_with_a_flipped_bit(tmp_path: Path) -> None:
    """The checksum of gzip is verified."""
    data = bytearray(tarred({"1": np.random.default_rng(1).bytes(90_000)}, "w:gz"))
    data[len(data) // 2] ^= 1
    assert "are no whole gzip file" in refusal(tmp_path, bytes(data), "set.tgz")


def test_a_damaged_member_is_one_case(tmp_path: Path) -> None:
    """Other members of a zip are still read."""
    data = bytearray(zipped(FILES, zipfile.ZIP_STORED))
    data[data.index(b"oneone")] ^= 1
    (tmp_path / "set.zip").write_bytes(data)
    with open_tree(tmp_path / "set.zip") as tree:
        assert tree.read("a/2.png") == FILES["a/2.png"]
        with pytest.raises(CaseError, match=r"case 'a/1.png': the file cannot be read from .*zip \(BadZipFile"):
            tree.read("a/1.png")
        with pytest.raises(CaseError, match=r"case 'a/3.png': .*set.zip holds no such file"):
            tree.read("a/3.png")


def test_a_file_that_went_away_is_one_case(tmp_path: Path) -> None:
    """The file is named, and the reason."""
    source = make(tmp_path, "")
    with open_tree(source) as tree:
        (source / "a/1.png").unlink()
        with pytest.raises(CaseError, match=r"case 'a/1.png': .*FileNotFoundError"):
            tree.read("a/1.png")


def test_an_encrypted_zip(tmp_path: Path) -> None:
    """Said when it is opened, not at the first member."""
    data = bytearray(zipped({"1": b"x"}, zipfile.ZIP_STORED))
    data[data.index(b"PK\1\2") + 8] |= 1
    assert "is encrypted: unpack it with its password and give the folder" in refusal(tmp_path, bytes(data))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_packing_in_a_zip(tmp_path: Path, method: int) -> None:
    """The member and the method are named, and what to do."""
    message = refusal(tmp_path, zipped({"1.png": b"x" * 99}, method))
    assert f"the member '1.png' is packed by the zip method {method}, which is not read here: unpack" in message


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"BZh91AY", "is packed by bzip2, which is not read here: unpack it and give the folder"),
        (b"\xfd7zXZ\0more", "is packed by xz"),
        (b"7z\xbc\xaf\x27\x1c", "is packed by 7z"),
        (b"Rar!\x1a\x07\x00", "is packed by RAR"),
        (b"", "is not a zip, tar or tar.gz archive: it is empty. Fetch it again."),
        (b"\n<!DOCTYPE html>", "it begins like a web page, as a download without a log-in often gives"),
        (b"GIF89a..", "it begins with b'GIF89a..'"),
        (
            gzip.compress(b"a volume" * 999, mtime=0),
            "is one file packed by gzip, not a tar.gz archive: give the folder",
        ),
    ],
    ids=["bzip2", "xz", "7z", "rar", "empty", "page", "gif", "gzip"],
)
def test_what_is_no_archive(tmp_path: Path, data: bytes, found: str) -> None:
    """Whatever its name says, the content tells."""
    assert found in refusal(tmp_path, data)


def test_an_archive_is_known_by_its_content(tmp_path: Path) -> None:
    """A tar.gz that was saved as .zip is read."""
    (tmp_path / "set.zip").write_bytes(tarred(FILES, "w:gz"))
    assert content(tmp_path / "set.zip") == FILES


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the size that is claimed, and above some size by the ratio; a small mask may be packed as well as it likes."""
    data = zipped({"mask": bytes(1_000_000)})
    (tmp_path / "fine.zip").write_bytes(data)
    assert content(tmp_path / "fine.zip") == {"mask": bytes(1_000_000)}
    monkeypatch.setattr(archives, "_UNSUSPECTED_BYTES", 100_000)
    assert "claims 1000000 bytes unpacked from" in refusal(tmp_path, data)
    assert "claims 1000000 bytes unpacked from" in refusal(tmp_path, tarred({"m": bytes(1_000_000)}, "w:gz"), "m.tgz")
    monkeypatch.setattr(archives, "_MOST_BYTES", 200_000)
    assert "claims 1000000 bytes, more than the 200000 that one file may have" in refusal(tmp_path, data)


def test_archives_do_not_nest_without_end(tmp_path: Path) -> None:
    """There are zips that hold themselves."""
    data = zipped(FILES)
    for _ in range(3):
        data = zipped({"in.zip": data})
    (tmp_path / "set.zip").write_bytes(data)
    assert len(content(tmp_path)) == len(FILES)
    assert "in.zip/in.zip/in.zip/in.zip/in.zip is inside 4 nested archives" in refusal(
        tmp_path, zipped({"in.zip": zipped({"in.zip": data})})
    )


def test_a_damaged_archive_in_a_folder_is_named(tmp_path: Path) -> None:
    """By its whole path, with what to do."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a/in.zip").write_bytes(zipped(FILES)[:300])
    with pytest.raises(IntegrityError, match=r"/a/in.zip was cut or is damaged"), open_tree(tmp_path):
        pass


def test_a_source_that_is_not_there(tmp_path: Path) -> None:
    """The path is named."""
    with (
        pytest.raises(UnavailableError, match=r"nowhere cannot be opened \(No such file"),
        open_tree(tmp_path / "nowhere"),
    ):
        pass


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the command that installs it."""
    monkeypatch.setitem(__import__("sys").modules, "indexed_gzip", None)
    source = make(tmp_path, ".tgz")
    with pytest.raises(UnavailableError, match=r"indexed_gzip is needed .*pip install 'pytest-promptseg\[data\]'"):
        open_tree(source).__enter__()
