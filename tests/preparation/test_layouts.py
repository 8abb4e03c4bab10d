"""Every layout of every data set of the catalogue finds in its files exactly what was put into them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.archives import (
    BUILDERS,
    DATA,
    REAL,
    Builder,
    builder_of,
    check,
    found,
    spec_of,
    synthetic,
    zipped,
)

from promptseg.preparation.tree import open_tree
from promptseg.registry.references import resolve

NAMES = [f"{builder.dataset}-{builder.layout}" for builder in BUILDERS]


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scratch files lie in a cache of the test's own."""
    monkeypatch.setenv("PROMPTSEG_CACHE", str(tmp_path_factory.mktemp("cache")))


def test_every_layout_has_a_builder() -> None:
    """No layout of the catalogue is left without a test."""
    names = {builder.dataset for builder in BUILDERS}
    layouts = {(name, position) for name in names for position in range(len(spec_of(name).layouts))}
    assert {(builder.dataset, builder.layout) for builder in BUILDERS} == layouts


@pytest.mark.parametrize("builder", BUILDERS, ids=NAMES)
def test_what_was_built_is_found(builder: Builder, tmp_path: Path) -> None:
    """Ids, pictures, label maps, subjects and spacings are those that the files were made of."""
    expected = builder.build(tmp_path, synthetic(builder.kind))
    check(found(spec_of(builder.dataset), tmp_path), expected)
    labels = {int(label) for case in expected.values() for label in np.unique(case.labels)} - {0}
    assert labels


@pytest.mark.parametrize("name", ["us_breast", "mri_heart", "pet_whole_body", "mri_prostate"])
def test_an_archive_is_read_as_its_folder_is(name: str, tmp_path: Path) -> None:
    """One zip, with the owners' folders below another one, gives the same cases."""
    expected = builder_of(name).build(tmp_path / "files/any folder", synthetic(builder_of(name).kind))
    check(found(spec_of(name), zipped(tmp_path / "files", tmp_path / "all.zip")), expected)


@pytest.mark.parametrize("builder", BUILDERS, ids=NAMES)
def test_the_files_of_another_data_set_are_no_layout(builder: Builder, tmp_path: Path) -> None:
    """A wrong archive is not taken for the right one: the layout finds nothing and says so."""
    other = builder_of("us_nerve") if builder.dataset != "us_nerve" else builder_of("mri_heart")
    other.build(tmp_path, synthetic(other.kind))
    layout = spec_of(builder.dataset).layouts[builder.layout]
    with open_tree(tmp_path) as tree:
        assert list(resolve(layout.read)(tree, layout.options)) == []


@pytest.mark.real
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no real images at {DATA}")
@pytest.mark.parametrize("name", REAL)
def test_real_images_in_the_layout_of_their_owners(name: str, tmp_path: Path) -> None:
    """Real images and masks, under the owners' names, come out as they went in."""
    dataset, layout, contents = REAL[name]
    expected = builder_of(dataset, layout).build(tmp_path, contents())
    assert expected
    check(found(spec_of(dataset), tmp_path), expected)
