import os
import subprocess
import sys

import pytest
import torch

from input_hessian.experiment.devices import configure, with_float64
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.provenance import commit, fingerprint

MODES = """
import os
import torch
from input_hessian.experiment.devices import configure
from input_hessian.experiment.provenance import environment
print(environment(configure("cpu", 1), 1)["arithmetic"], torch.backends.cuda.matmul.allow_tf32)
print(os.environ["NVIDIA_TF32_OVERRIDE"])
"""


def test_the_record_says_what_changes_bits_and_no_variable_allows_short_mantissas():
    variables = {"ATEN_CPU_CAPABILITY": "default", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE": "1"}
    variables |= {"NVIDIA_TF32_OVERRIDE": "1", "MKL_CBWR": "COMPATIBLE"}
    command = [sys.executable, "-c", MODES]
    done = subprocess.run(command, env=os.environ | variables, capture_output=True, text=True)
    mkldnn = "oneDNN" if torch.backends.mkldnn.is_available() else "no oneDNN"
    assert done.stdout == (
        f"DEFAULT, {mkldnn}, deterministic, no TF32, MKL_CBWR=COMPATIBLE False\n0\n"
    )


@pytest.mark.parametrize("name", ["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"])
def test_convolutions_in_bfloat16_are_refused(name, monkeypatch):
    monkeypatch.setenv(name, "BF16")
    with pytest.raises(UserError, match=f"{name}: expected STRICT or unset, got BF16.*; unset it"):
        configure("cpu", 1)


def test_fingerprint_changes_with_what_a_result_depends_on_and_with_nothing_else(tmp_path):
    code, where = tmp_path / "code.py", {"torch": "2", "device": "cpu", "threads": 1, "commit": "a"}
    where |= {"arithmetic": "AVX2"}
    code.write_text("x")
    first = fingerprint({"a": 1, "b": 2}, where, [code])
    assert fingerprint({"b": 2, "a": 1}, where | {"commit": "b"}, [code]) == first
    for key, value in {
        "torch": "3",
        "device": "H100",
        "threads": 2,
        "arithmetic": "AVX512",
    }.items():
        assert fingerprint({"a": 1, "b": 2}, where | {key: value}, [code]) != first
    assert fingerprint({"a": 1, "b": 3}, where, [code]) != first
    code.write_text("y")
    assert fingerprint({"a": 1, "b": 2}, where, [code]) != first


@pytest.fixture
def repository(tmp_path):
    """A git repository with src/code.py and reports/figure.txt, and what runs git in it."""

    outside = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments):
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        command = ["git", "-C", tmp_path, *identity, *arguments]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=outside)
        return done.stdout.strip()

    for name in ("src/code.py", "reports/figure.txt"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("first")
    git("init")
    git("add", ".")
    git("commit", "-m", "first")
    return tmp_path, git


def test_the_commit_is_that_of_the_source_wherever_one_works(
    repository, tmp_path_factory, monkeypatch
):
    folder, git = repository
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    short = git("rev-parse", "--short=7", "HEAD")
    # A user's own settings, and the variables of a hook in another repository.
    git("config", "core.abbrev", "20")
    monkeypatch.setenv("GIT_DIR", "/dev/null")
    assert commit(folder / "src/code.py") == short
    (folder / "reports/figure.txt").write_text("redrawn")
    assert commit(folder / "src/code.py") == short
    (folder / "src/new.py").write_text("not tracked yet")
    assert commit(folder / "src/code.py") == f"{short}-dirty"
    (folder / "src/new.py").unlink()
    (folder / "src/code.py").write_text("edited")
    assert commit(folder / "src/code.py") == f"{short}-dirty"


def test_sources_inside_another_repository_have_no_commit(repository):
    folder, _ = repository
    unpacked = folder / "vendor/code.py"
    unpacked.parent.mkdir()
    unpacked.write_text("ours")
    assert commit(unpacked) == "unknown"
    assert commit(folder.parent / "nowhere.py") == "unknown"


@pytest.mark.parametrize(("device", "place"), [("cpu", "cpu"), ("cuda", "cuda"), ("mps", "cpu")])
def test_curvature_is_measured_where_there_is_float64(device, place):
    assert with_float64(torch.device(device)) == torch.device(place)


def test_a_job_has_at_least_one_thread():
    with pytest.raises(UserError, match="threads: expected a whole number of at least 1, got 0"):
        configure("cpu", 0)
