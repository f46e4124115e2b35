"""An archive holds a run without its networks, and equal runs have equal archives."""

import zipfile

import archive
import pytest

from input_hessian.experiment.errors import UserError

CELL = "results/small/mnist/none/lam~0/seed~0"
LAMS = {"mnist": {"none": ["0"], "hessian": ["1"]}}
GRID = {"results": "results/small", "datasets": LAMS, "seeds": [0]}


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kept = ["images.parquet", ".images.parquet.sha256", "training.json", "examples.safetensors"]
    left_out = ["model.safetensors", ".model.safetensors.sha256", "checkpoint.pt"]
    left_out += ["kept/attack/images.parquet", "attacks/pgd_l2.safetensors"]
    other = CELL.replace("none/lam~0", "hessian/lam~1") + "/examples.safetensors"
    for name in [*(f"{CELL}/{name}" for name in kept + left_out), other]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "results/small/selection.csv").write_text("a\n")
    stale = tmp_path / CELL.replace("lam~0", "lam~7") / "images.parquet"  # of an earlier grid
    stale.parent.mkdir(parents=True)
    stale.write_text("stale")
    return {*(f"{CELL}/{name}" for name in kept), "results/small/selection.csv"}


def pack(path, tmp_path):
    shown = tmp_path / CELL / "examples.safetensors"
    archive.main([shown], settings={"grid": GRID}, archive=tmp_path / path)
    return (tmp_path / path).read_bytes()


def test_an_archive_unpacks_to_the_results_without_the_networks(results, tmp_path):
    content = pack("cells.zip", tmp_path)
    with zipfile.ZipFile(tmp_path / "cells.zip") as unpacked:
        assert set(unpacked.namelist()) == results
        unpacked.extractall(tmp_path / "elsewhere")
    for name in results:
        assert (tmp_path / "elsewhere" / name).read_bytes() == (tmp_path / name).read_bytes()
    (tmp_path / CELL / "images.parquet").touch()
    assert pack("again.zip", tmp_path) == content


def test_a_run_without_results_is_no_archive(results, tmp_path):
    grid = GRID | {"results": "results/none"}
    with pytest.raises(UserError, match="results/none: expected the results of a run, found none"):
        archive.main([], settings={"grid": grid}, archive=tmp_path / "cells.zip")
