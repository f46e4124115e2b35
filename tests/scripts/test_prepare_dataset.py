"""Preparing a data set, as the rule does it."""

import json

import prepare_dataset
import pytest
from helpers import tiny_cifar10
from helpers.servers import files_of, serving

from input_hessian.experiment.data import DatasetError, load


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    """Run the script in `tmp_path`; gives the folder that holds what it wrote."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def run(dataset, mirror, folder="data"):
        path = tmp_path / folder
        prepare_dataset.main(
            dataset,
            mirror=str(mirror),
            raw=f"{folder}/raw/set",
            data=path / "set.safetensors",
            provenance=path / "set.json",
        )
        return path

    return run


def test_equal_bytes_wherever_the_files_came_from(prepare, tmp_path, capsys):
    mirror = tmp_path / "mirror"
    tiny_cifar10.write_mirror(mirror)
    here = prepare(tiny_cifar10.__file__, mirror)
    lines = capsys.readouterr().out.splitlines()
    archive = f"tiny_cifar10/{tiny_cifar10.ARCHIVE}"
    assert lines[0] == f"{archive}: md5 verified, from {mirror}/tiny_cifar10/"
    assert "200 train, 50 validation, 60 test images" in lines[1]

    with serving(files_of(mirror)) as server:
        there = prepare(tiny_cifar10.__file__, server.url, folder="there")
    assert (there / "set.safetensors").read_bytes() == (here / "set.safetensors").read_bytes()
    records = [json.loads((folder / "set.json").read_text()) for folder in (here, there)]
    sources = [record.pop("sources")[tiny_cifar10.ARCHIVE] for record in records]
    assert sources == [f"{mirror}/tiny_cifar10/", f"{server.url}/tiny_cifar10/"]
    assert records[0] == records[1]
    assert records[0]["md5"] == tiny_cifar10.DATASET.files


def test_digits_need_no_mirror(prepare, capsys):
    path = prepare("digits", "none") / "set.safetensors"
    assert "1197 train, 200 validation, 400 test images" in capsys.readouterr().out
    assert load(path, "test").images.shape == (400, 1, 8, 8)


def test_without_the_files_nothing_is_written(prepare, tmp_path, capsys):
    with pytest.raises(DatasetError) as error:
        prepare(tiny_cifar10.__file__, "no/such")
    assert str(error.value).startswith(f"cannot get {tiny_cifar10.ARCHIVE} of tiny_cifar10")
    assert f"no/such: no such folder: {tmp_path / 'no/such'}" in str(error.value)
    assert not list((tmp_path / "data").glob("*.*"))
    assert not capsys.readouterr().out
