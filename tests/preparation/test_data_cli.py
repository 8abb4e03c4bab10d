"""``promptseg data``: what each command prints, writes and refuses."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image
from support.blocks import SPEC
from support.hub_server import COMMIT, Fault, HubServer, Reply
from typer.testing import CliRunner, Result

from promptseg.cli import data, main, terminal
from promptseg.data import prepared
from promptseg.errors import CaseError, ConfigError, UnavailableError
from promptseg.files.datasets import LocalData
from promptseg.preparation import fetch, preview, push, run
from promptseg.preparation.check import Finding, findings, look_at_all
from promptseg.registry.entries import Registered, Registry
from promptseg.specs import DatasetSpec, Origin, TaskSpec


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch, block_files: Path) -> Path:
    """Return the folder of the six volumes of the data set ``blocks``, which is the only one registered."""
    registry = Registry([], [Registered("blocks", "these tests", SPEC)], [])
    monkeypatch.setattr(terminal, "open_registry", lambda config: registry)
    return block_files


def ask(*arguments: str, code: int = 0) -> Result:
    """Run a command of ``promptseg data``; errors of promptseg pass through."""
    result = CliRunner().invoke(data.app, list(arguments))
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_prepare_tells_what_it_wrote(registered: Path) -> None:
    """Number of images, size, layout, fingerprint and folder; a task stands for its data set."""
    text = ask("prepare", "blocks_two", "--from", str(registered)).stdout
    record = prepared.find(SPEC)
    assert record is not None
    assert text.startswith("blocks: 12 images, ")
    assert "from arrays" in text
    assert record.fingerprint in text
    assert str(prepared.folder(SPEC)) in text


def test_prepare_tells_of_another_count_than_the_published_one(
    registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half a data set, as a folder too deep holds it, does not pass without a word; the right count needs none."""
    for published, told in ((12, False), (13, True)):
        registry = Registry([], [Registered("blocks", "these tests", replace(SPEC, n_masks=published))], [])
        monkeypatch.setattr(terminal, "open_registry", lambda config, registry=registry: registry)
        text = ask("prepare", "blocks", "--from", str(registered)).stdout
        assert ("the published count is 13: compare with `promptseg data check blocks`" in text) == told


def test_prepare_names_what_could_not_be_read(registered: Path) -> None:
    """The exit code is 1, the rest is there, and the way on is told."""
    (registered / "volume_5.npy").write_bytes(b"broken")
    text = ask("prepare", "blocks", "--from", str(registered), code=1).stdout
    assert "blocks: 10 images" in text
    assert "could not be read: volume_5: " in text
    assert "the same command reads only these" in text


def test_prepare_puts_a_copy_where_it_is_asked_to(registered: Path, tmp_path: Path) -> None:
    """`datasets` opens the copy; a folder that holds something else is left alone."""
    out = tmp_path / "out"
    ask("prepare", "blocks", "--from", str(registered), "--out", str(out))
    assert len(datasets.load_dataset(str(out), split="test", cache_dir=str(tmp_path / "hf"))) == 12
    with pytest.raises(ConfigError, match="out is not empty"):
        ask("prepare", "blocks", "--from", str(registered), "--out", str(out))


def test_prepare_reads_again_what_the_hub_sent_damaged(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same command, without a path, when the file was fetched again; what is whole is left as it is."""
    spec = replace(SPEC, origin=Origin(host="hub", repo="org/blocks", revision=COMMIT))
    registry = Registry([], [Registered("blocks", "these tests", spec)], [])
    monkeypatch.setattr(terminal, "open_registry", lambda config: registry)
    monkeypatch.setattr(fetch, "_fetch_files", lambda spec: LocalData(registered, COMMIT))
    whole = (registered / "volume_5.npy").read_bytes()
    (registered / "volume_5.npy").write_bytes(b"broken")
    assert "blocks: 10 images" in ask("prepare", "blocks", code=1).stdout
    (registered / "volume_5.npy").write_bytes(whole)
    assert "blocks: 12 images" in ask("prepare", "blocks").stdout
    (registered / "volume_5.npy").unlink()
    assert "blocks: 12 images" in ask("prepare", "blocks").stdout


def test_prepare_tells_which_revision_to_pin(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the spec names none: that of the Hub's files. Nobody knows one for files that were given."""
    spec = replace(SPEC, origin=Origin(host="hub", repo="org/blocks"))
    registry = Registry([], [Registered("blocks", "these tests", spec)], [])
    monkeypatch.setattr(terminal, "open_registry", lambda config: registry)
    monkeypatch.setattr(fetch, "_fetch_files", lambda spec: LocalData(registered, COMMIT))
    assert "pin" not in ask("prepare", "blocks", "--from", str(registered)).stdout
    shutil.rmtree(prepared.folder(spec))
    assert f"put into the spec: revision {COMMIT} of org/blocks\n" in ask("prepare", "blocks").stdout


def test_who_stops_a_preparation_is_told_what_becomes_of_it(registered: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, no traceback, and the exit code of an interrupt."""

    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(fetch, "prepare_dataset", stopped)
    result = CliRunner().invoke(data.app, ["prepare", "blocks", "--from", str(registered)])
    assert result.exit_code == 130
    assert "The finished parts of blocks are kept: the same command resumes from there." in result.stderr
    assert "Traceback" not in result.output


def test_a_cache_that_cannot_be_written_is_told(
    registered: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Which folder, why, and the variable that moves it."""
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path / "file"))
    with pytest.raises(UnavailableError, match=r"blocks: nothing can be written to .*file/prepared.*PROMPTSEG_CACHE"):
        ask("prepare", "blocks", "--from", str(registered))


def test_an_error_of_the_disk_is_one_line(registered: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A sheet, or a copy, that cannot be written where it is wanted ends the command without a traceback."""
    run.prepare(SPEC, registered)
    for arguments in (["preview", "blocks", "--out", str(tmp_path)], ["prepare", "blocks", "--out", "/proc/no/such"]):
        result = CliRunner().invoke(main.app, ["data", *arguments])
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: [Errno ")
        assert len(result.stderr.splitlines()) == 1


def test_prepare_is_for_data_sets_with_layouts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others are used as they are."""
    plain = replace(SPEC, layouts=(), embedded=True)
    registry = Registry([], [Registered("blocks", "these tests", plain)], [])
    monkeypatch.setattr(terminal, "open_registry", lambda config: registry)
    with pytest.raises(ConfigError, match="nothing to prepare"):
        ask("prepare", "blocks")


def test_check_prints_a_table(registered: Path) -> None:
    """Counts beside the published ones, label ids, sizes and patients."""
    run.prepare(SPEC, registered)
    lines = [line.split() for line in ask("check", "blocks").stdout.splitlines()]
    assert lines[0] == ["what", "found", "expected", "verdict"]
    assert ["masks", "of", "blocks_one", "4", "-"] in lines
    assert ["label", "ids", "1,", "2,", "3,", "4", "1,", "2,", "3,", "4", "ok"] in lines
    assert ["sizes", "16", "x", "12", "-"] in lines
    assert ["patients", "6", "-"] in lines


def test_check_fails_for_what_could_not_be_read(registered: Path) -> None:
    """An evaluation would stumble over it."""
    (registered / "volume_1.npy").write_bytes(b"broken")
    run.prepare(SPEC, registered)
    text = ask("check", "blocks", code=1).stdout
    assert "unusable cases" in text
    assert "1 (volume_1: " in text


class Pictures:
    """Samples from arrays: a case, its image and its label map."""

    fingerprint = "pictures"

    def __init__(self, **cases: tuple[np.ndarray, np.ndarray] | None) -> None:
        self._cases = cases

    def ids(self) -> list[str]:
        """Return the ids."""
        return sorted(self._cases)

    def subject(self, case_id: str) -> None:
        """Return None."""

    def labels(self, case_id: str) -> np.ndarray:
        """Return the label map."""
        return self._case(case_id)[1]

    def image(self, case_id: str) -> np.ndarray:
        """Return the image."""
        return self._case(case_id)[0]

    def _case(self, case_id: str) -> tuple[np.ndarray, np.ndarray]:
        case = self._cases[case_id]
        if case is None:
            raise CaseError(case_id, "is gone")
        return case


def picture(label: int, *, shade: int = 90, size: tuple[int, int] = (20, 30)) -> tuple[np.ndarray, np.ndarray]:
    """Return an image of one shade and a label map with a rectangle of ``label``."""
    labels = np.zeros(size, np.uint8)
    labels[5:10, 8:16] = label
    return np.full((*size, 3), shade, np.uint8), labels


def table(spec: DatasetSpec, samples: Pictures) -> dict[str, Finding]:
    """Return the findings by what they are about."""
    return {line.what: line for line in findings(spec, look_at_all(spec, samples))}


def test_counts_are_compared_with_the_published_ones() -> None:
    """Another count differs, which an edition may; the same one is ok."""
    spec = replace(SPEC, n_masks=3, tasks=(TaskSpec(name="one", labels=(1,), n_masks=2),))
    found = table(spec, Pictures(a=picture(1), b=picture(1, shade=91)))
    assert found["images with an object"] == ("images with an object", "2", "3", "differs")
    assert found["masks of one"] == ("masks of one", "2", "2", "ok")


def test_faults_of_the_data_are_wrong() -> None:
    """A task that never occurs, unknown ids, masks without an object, unusable cases; equal images are counted."""
    samples = Pictures(
        a=picture(1), b=picture(9), c=None, d=picture(1), e=(picture(1)[0], picture(1, size=(20, 31))[1])
    )
    found = table(replace(SPEC, other_labels=()), samples)
    assert found["masks of blocks_two"].verdict == "wrong"
    assert found["label ids"] == ("label ids", "1, 9", "1, 2, 3", "wrong")
    assert found["empty masks"] == ("empty masks", "1 (b)", "0", "wrong")
    assert found["unusable cases"].found.startswith("2 (c: is gone; e: the image is 30 x 20 pixels")
    assert found["images equal to another"].found == "3"


def test_preview_draws_contours(registered: Path, tmp_path: Path) -> None:
    """A sheet of tiles in columns of six, with coloured lines round the objects."""
    run.prepare(SPEC, registered)
    path = tmp_path / "sheet.png"
    assert "8 of 12 images" in ask("preview", "blocks", "--out", str(path), "--count", "8").stdout
    sheet = np.asarray(Image.open(path)).astype(int)
    side = preview.TILE + 6
    assert sheet.shape[:2] == (24 + 2 * (side + 22) + 6, 6 * side + 6)
    assert (np.ptp(sheet[..., :], axis=2) > 60).any()  # the images are grey: colours are contours


def test_contours_lie_on_the_border_of_the_object() -> None:
    """Not moved by the change of size."""
    image, labels = picture(1)
    drawn = preview.outlined(image, labels, 300)
    coloured = np.argwhere(np.ptp(drawn.astype(int), axis=2) > 60)
    assert coloured.min(axis=0).tolist() == [50, 80]
    assert coloured.max(axis=0).tolist() == [99, 159]


def test_unusable_cases_have_a_tile() -> None:
    """They are not left out of the sheet."""
    sheet = preview.contact_sheet(Pictures(a=picture(1), b=None), ["a", "b"], {})
    caption = sheet[24 + preview.TILE :, preview.TILE + 6 :].astype(int)
    assert (caption[..., 0] - caption[..., 2] > 100).any()


def test_a_label_has_one_colour_everywhere() -> None:
    """Also where a lower one is missing; the line at the top shows it with its name."""
    both = np.where(np.arange(30) < 12, picture(1)[1], picture(2)[1])
    for labels in (both, picture(2)[1]):
        drawn = preview.outlined(picture(1)[0], labels, 300)
        assert (drawn == preview.colour_of(2)).all(axis=2).any()
        assert (drawn == preview.colour_of(1)).all(axis=2).any() == (labels == 1).any()
    sheet = preview.contact_sheet(Pictures(a=picture(1)), ["a"], {2: "vessel"})
    assert (sheet[:24].astype(int).max(axis=2) > 100).any()


def test_the_names_of_all_labels_fit(registered: Path) -> None:
    """A sheet of one image is made as wide as its line of names."""
    narrow, wide = (
        preview.contact_sheet(Pictures(a=picture(1)), ["a"], names)
        for names in ({1: "cyst"}, {1: "necrotic and non-enhancing core", 2: "oedema around it", 3: "enhancing rim"})
    )
    assert narrow.shape[1] == preview.TILE + 2 * 6
    assert wide.shape[1] > narrow.shape[1]
    added = wide[:24, narrow.shape[1] :].astype(int)
    assert (added[..., 1] - added[..., 0] > 60).any()  # the third name, in green
    assert (wide[:24, -10:] == wide[0, -1]).all()


def test_cases_are_spread_over_the_whole() -> None:
    """First and last among them; all where there are fewer."""
    ids = [f"{number:03}" for number in range(101)]
    assert preview.spread(ids, 5) == ["000", "025", "050", "075", "100"]
    assert preview.spread(ids[:3], 5) == ids[:3]


def test_push_is_refused_by_the_licence(registered: Path) -> None:
    """Nobody is asked on the Hub."""
    record = run.prepare(SPEC, registered)
    with pytest.raises(ConfigError, match=r"licence.*does not let others publish it"):
        push.push(replace(SPEC, shareable=False), record, prepared.folder(SPEC), "me/blocks")


def test_the_licence_is_looked_at_before_anything_is_prepared(
    monkeypatch: pytest.MonkeyPatch, registered: Path
) -> None:
    """Nobody prepares for hours what then may not be pushed."""
    registry = Registry([], [Registered("blocks", "these tests", replace(SPEC, shareable=False))], [])
    monkeypatch.setattr(terminal, "open_registry", lambda config: registry)
    with pytest.raises(ConfigError, match=r"licence.*does not let others publish it"):
        ask("push", "blocks", "me/blocks")


def test_push_tells_a_wrong_name_from_a_missing_network(caches: Path, registered: Path) -> None:
    """Neither is a matter of a token."""
    run.prepare(SPEC, registered)
    with pytest.raises(ConfigError, match="'m e/blocks' is not the name of a repository on the Hub, ORG/REPO"):
        ask("push", "blocks", "m e/blocks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        with pytest.raises(UnavailableError, match=r"could not be uploaded .*Try again where the Hub can be reached"):
            ask("push", "blocks", "me/blocks")


def test_push_is_refused_for_a_part(registered: Path) -> None:
    """What is not whole is not published."""
    (registered / "volume_1.npy").write_bytes(b"broken")
    record = run.prepare(SPEC, registered)
    with pytest.raises(ConfigError, match="not whole: 1 could not be read, first volume_1"):
        push.push(SPEC, record, prepared.folder(SPEC), "me/blocks")


def test_push_needs_a_prepared_data_set(registered: Path) -> None:
    """The message has the command."""
    with pytest.raises(ConfigError, match="run `promptseg data prepare blocks` first"):
        ask("push", "blocks", "me/blocks")


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # huggingface_hub's way to send a file
def test_push_uploads_the_form_and_its_card(
    hub_server: HubServer, registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One commit with the Parquet files and a README that says what, from where, under which licence."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)  # the server speaks plain HTTP only
    monkeypatch.setenv("HF_TOKEN", "hf_writer")
    record = run.prepare(SPEC, registered)
    assert f"commit {COMMIT} of me/blocks" in ask("push", "blocks", "me/blocks").stdout
    files = hub_server.repositories["dataset me/blocks"].files
    written = {path: (prepared.folder(SPEC) / path).read_bytes() for path in record.files}
    assert {path: files[path] for path in written} == written
    assert set(files) == {*written, "README.md"}
    assert len(hub_server.asked("POST .*/commit/main")) == 1
    header, text = files["README.md"].decode().split("---\n")[1:3]
    assert "license: cc0-1.0\n" in header
    assert "path: data/test-*.parquet\n" in header
    assert "- `blocks_two`: object (ids 2, 3)" in text
    assert "https://example.org/blocks" in text
    assert record.fingerprint in text


def test_push_without_a_right_to_write_is_told(
    hub_server: HubServer, registered: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the repository and what to log in with."""
    monkeypatch.setenv("HF_TOKEN", "hf_reader")
    hub_server.faults = [Fault("POST /api/repos/create", reply=Reply(403, body=b'{"error": "no rights"}'))]
    run.prepare(SPEC, registered)
    with pytest.raises(
        UnavailableError, match=r"blocks could not be uploaded to .*/datasets/me/blocks .*403.*HF_TOKEN"
    ):
        ask("push", "blocks", "me/blocks")


def test_a_licence_without_an_identifier_is_named(registered: Path) -> None:
    """The Hub's header knows few; words stay words."""
    record = run.prepare(SPEC, registered)
    assert 'license: other\nlicense_name: "on request: ask"' in push.card(
        replace(SPEC, licence="on request: ask"), record
    )
