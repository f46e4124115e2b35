"""What a machine and its user have set up changes nothing."""

import json
from pathlib import Path

import pytest
from helpers.repository import ENVIRONMENT, Repository, copy_tree

pytestmark = pytest.mark.slow

CELL = "results/everything/digits/none/lam~0/seed~0"
SHORT = ("--config", "training={epochs: 1}")


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone with one trained cell."""
    repository = Repository(copy_tree(tmp_path_factory.mktemp("clone")))
    with pytest.MonkeyPatch.context() as user:
        user.setitem(ENVIRONMENT, "ONEDNN_DEFAULT_FPMATH_MODE", "BF16")  # refused, if it counted
        user.setitem(ENVIRONMENT, "PYTHONDONTWRITEBYTECODE", "1")
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


def test_jobs_keep_what_python_compiles(clone):
    assert list(clone.path.glob("src/**/*.pyc"))


def test_a_slurm_profile_without_slurm_says_so(clone, tmp_path, monkeypatch):
    for path in Path("/usr/bin").iterdir():
        if path.name != "sbatch":
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.setitem(ENVIRONMENT, "PATH", str(tmp_path))
    profile = ("--workflow-profile", "profiles/slurm")
    pytest.importorskip("snakemake_executor_plugin_slurm")
    done = clone.snakemake(*profile, "--force", f"{CELL}/model.safetensors", *SHORT, check=False)
    assert done.returncode == 1
    assert "expected Slurm's sbatch on this machine, found none" in done.stdout


def test_a_device_by_its_name_and_by_auto_is_one(clone):
    device = json.loads((clone.path / CELL / "training.json").read_text())["device"]
    name = device if device in ("cpu", "mps") else "cuda"
    for given in (name, "auto"):
        arguments = (f"{CELL}/model.safetensors", *SHORT, f"device={given}")
        assert clone.planned(*arguments) == {}
