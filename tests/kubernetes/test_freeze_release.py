"""What `make release-freeze` keeps of a release is whole, or is not there."""

import lzma
import sqlite3
import tarfile
from pathlib import Path

import pytest

from tests.fixtures import freeze_release
from tests.kubernetes.fixtures import expect_programs

pytestmark = pytest.mark.process


def test_a_release_leaves_its_chart_with_definitions_and_a_store(tmp_path: Path) -> None:
    expect_programs(("helm",))
    kept = tmp_path / "kept"
    freeze_release.freeze(kept)
    (chart,) = kept.glob("headrace-*.tgz")
    with tarfile.open(chart) as packed:
        names = {Path(each).name for each in packed.getnames()}
    assert {"Chart.yaml", "values.schema.json"} <= names
    assert any("trainingjob" in each for each in names), "the definitions are part of it"
    store = tmp_path / "store.db"
    store.write_bytes(lzma.decompress((kept / freeze_release.STORE).read_bytes()))
    with sqlite3.connect(store) as database:
        assert database.execute("pragma integrity_check").fetchone() == ("ok",)


def test_what_could_not_be_made_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> Path:
        raise FileNotFoundError(name)

    monkeypatch.setattr(freeze_release, "program", broken)
    with pytest.raises(FileNotFoundError, match="helm"):
        freeze_release.freeze(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
