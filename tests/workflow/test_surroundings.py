"""What a machine and its user have set up changes nothing."""

import json

import pytest
from helpers.repository import ENVIRONMENT, Repository, copy_tree

pytestmark = pytest.mark.slow

CELL = "results/demo/digits/none/lam~0/seed~0"
SHORT = ("--config", "training={epochs: 1}")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone with one trained cell."""
    repository = Repository(copy_tree(tmp_path_factory.mktemp("clone")))
    repository.snakemake("--cores", "2", f"{CELL}/model.safetensors", *SHORT, "device=auto")
    return repository


def test_jobs_run_by_the_interpreter_of_snakemake(clone, tmp_path, monkeypatch):
    """Another Python goes first on the PATH, and the user's own settings would end every job."""
    other = tmp_path / "python"
    other.write_text("#!/bin/sh\necho another Python; exit 1\n")
    other.chmod(0o755)
    monkeypatch.setitem(ENVIRONMENT, "PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setitem(ENVIRONMENT, "MPLBACKEND", "none such")
    monkeypatch.setitem(ENVIRONMENT, "LC_ALL", "C")
    clone.snakemake("--cores", "2", "--force", "data/digits.safetensors", *SHORT)


def test_a_device_by_its_name_and_by_auto_is_one(clone):
    device = json.loads((clone.path / CELL / "training.json").read_text())["device"]
    name = device if device in ("cpu", "mps") else "cuda"
    for given in (name, "auto"):
        arguments = (f"{CELL}/model.safetensors", *SHORT, f"device={given}")
        assert clone.planned(*arguments) == {}
