"""The workflow through a real Slurm: the same tables as a local run, also after faults."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import yaml
from cluster import slurm
from cluster.slurm import wait_for
from pipeline.conftest import ENVIRONMENT, ROOT, Repository, copy_tree

pytestmark = pytest.mark.cluster

NAME, CELLS, EPOCHS = "small", 2, 40
CONFIG = ("--configfile", "config/small.yaml")
RESULTS, CELL = f"results/{NAME}/digits", "hessian/lam~1/seed~0"
SUMMARY = f"reports/{NAME}/tables/summary.csv"
RECOVERY = f"results/{NAME}/recovery/digits/hessian/lam~1.csv"
MEASUREMENTS = (SUMMARY, RECOVERY)
EVALUATION = f"{RESULTS}/{CELL}/evaluation.json"
# As in the README, with what makes a cluster of seconds-long jobs bearable.
PROFILE = ("--workflow-profile", "profiles/slurm", "--slurm-init-seconds-before-status-checks", "5")
TIMES = ["train_seconds", "milliseconds_per_step", "peak_memory_mb", "seconds"]
SECONDS, LIMIT = 3600, 1200  # no run, and nothing that is waited for, may take longer
TOO_LITTLE = 450  # MB: less than what Snakemake, in a job, and PyTorch need together


def small_config() -> dict:
    """The demo, reduced to two cells of seconds."""
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    config |= {"name": NAME, "seeds": [0]}
    config["training"]["epochs"] = EPOCHS
    config["regularizers"] = [r for r in config["regularizers"] if r["name"] in ("none", "hessian")]
    config["regularizers"][-1]["lam"] = [1]
    evaluation = config["evaluation"]
    evaluation["images"] = 100
    evaluation["attacks"] = [a for a in evaluation["attacks"] if a["attack"] in ("fgsm", "pgd")]
    config["recovery"] |= {"lam": [1], "images": 16, "progress": [0, 1], "hvps": [1, 3], "draws": 1}
    return config


class Checkout(Repository):
    """A copy of the repository with the small configuration."""

    def __init__(self, path: Path, environment: dict[str, str]):
        super().__init__(copy_tree(path))
        self.environment = environment
        (path / "config/small.yaml").write_text(yaml.safe_dump(small_config()))

    @contextlib.contextmanager
    def running(self, *arguments: str):
        """Run Snakemake in the background; on leaving, it must have ended well."""
        log = self.path / "snakemake.log"
        with log.open("w") as stream:
            run = subprocess.Popen(
                self.command(*arguments, *CONFIG),
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield run
            assert run.wait(timeout=SECONDS) == 0, log.read_text()[-6000:]
        finally:
            slurm.stop_tree(run.pid)
            run.wait()

    def run(self, *arguments: str) -> str:
        """Run Snakemake and return what it wrote."""
        with self.running(*arguments):
            pass
        return (self.path / "snakemake.log").read_text()

    def training_log(self) -> str:
        path = self.path / f"logs/{NAME}/train/digits/{CELL}.log"
        return path.read_text() if path.exists() else ""


@pytest.fixture(scope="session")
def cluster():
    """A Slurm of three nodes; tests that need it are skipped where it cannot be started."""
    if reason := slurm.missing():
        pytest.skip(reason)
    if importlib.util.find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.skip("The Slurm plugin is not installed: uv run --group cluster pytest -m cluster")
    started = slurm.Slurm()
    try:
        try:
            started.start()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            pytest.skip(f"Slurm is installed but does not start here: {error}")
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def local(tmp_path_factory):
    """What a run on this machine computes."""
    environment = ENVIRONMENT | {"OMP_NUM_THREADS": "1"}
    checkout = Checkout(tmp_path_factory.mktemp("local"), environment)
    checkout.run(*MEASUREMENTS, "--cores", "2")
    return checkout


@pytest.fixture(scope="session")
def remote(cluster, tmp_path_factory):
    """Another copy, of which jobs run on the cluster."""
    environment = ENVIRONMENT | cluster.environment
    environment["PATH"] = f"{cluster.folder}/bin:{ENVIRONMENT['PATH']}"
    return Checkout(tmp_path_factory.mktemp("remote"), environment)


@pytest.fixture
def fresh(remote):
    """The copy without results, and without jobs of another test."""
    for folder in ("results", "reports", "logs"):
        shutil.rmtree(remote.path / folder, ignore_errors=True)
    return remote


def assert_same_tables(local: Checkout, remote: Checkout) -> None:
    for name in ("cells", "robustness", "curves", "summary"):
        tables = [
            pd.read_csv(checkout.path / f"reports/{NAME}/tables/{name}.csv", keep_default_na=False)
            for checkout in (local, remote)
        ]
        expected, found = (table.drop(columns=TIMES, errors="ignore") for table in tables)
        pd.testing.assert_frame_equal(found, expected, check_exact=True)
    for path in (local.path / RESULTS).rglob("model.safetensors"):
        assert (remote.path / path.relative_to(local.path)).read_bytes() == path.read_bytes()


def assert_same_cell(local: Checkout, remote: Checkout) -> None:
    for name in ("model.safetensors", "images.parquet", "examples.safetensors"):
        expected, found = ((c.path / RESULTS / CELL / name).read_bytes() for c in (local, remote))
        assert found == expected, name


def cell_jobs(cluster: slurm.Slurm, before: set[str]) -> list[dict[str, str]]:
    """Jobs that train cells and came after ``before``, in the order of their submission."""
    jobs = {int(job): row for job, row in cluster.jobs().items() if job not in before}
    return [jobs[job] | {"id": str(job)} for job in sorted(jobs) if "train" in jobs[job]["comment"]]


def running_cell(cluster: slurm.Slurm, before: set[str]) -> str:
    """The one job of a cell that runs."""
    (job,) = (row["id"] for row in cell_jobs(cluster, before) if row["state"] == "RUNNING")
    return job


def wait_for_epoch(checkout: Checkout, epoch: int) -> None:
    wait_for(lambda: f"epoch {epoch}/{EPOCHS}" in checkout.training_log(), LIMIT, f"epoch {epoch}")


def resumed_after(checkout: Checkout) -> int:
    """The epoch that a repeated training took from its checkpoint."""
    return int(re.search(r"resuming after epoch (\d+)", checkout.training_log())[1])


def test_cluster_computes_what_a_local_run_computes(cluster, local, fresh):
    before = set(cluster.jobs())
    fresh.run(*MEASUREMENTS, *PROFILE)
    assert_same_tables(local, fresh)
    assert (fresh.path / RECOVERY).read_text() == (local.path / RECOVERY).read_text()
    # One submission per cell, per selected cell (one per regularizer, which is attacked further) and
    # per measurement; data and tables are made where Snakemake runs.
    jobs = [row for job, row in cluster.jobs().items() if job not in before]
    assert len(cell_jobs(cluster, before)) == CELLS
    assert {row["state"] for row in jobs} == {"COMPLETED"}
    assert "Nothing to be done" in fresh.run(*MEASUREMENTS, *PROFILE)


def test_bundled_cells_on_one_gpu_and_a_scratch_folder(cluster, local, fresh):
    """Two cells in one job: minutes add up, memory and GPUs do not."""
    before = set(cluster.jobs())
    scratch = cluster.folder / "scratch"
    fresh.run(
        SUMMARY,
        *PROFILE,
        *("--group-components", "cell=2"),
        *("--set-resources", "train:gpu=1", "attack:gpu=1"),
        *("--default-resources", "in_turn=1", "slurm_partition=gpu"),
        f"tmpdir={scratch}/$SLURM_JOB_ID",
    )
    assert_same_tables(local, fresh)
    (job,) = cell_jobs(cluster, before)
    assert (job["state"], job["node"], job["gpus"]) == ("COMPLETED", "n3", "gres:gpu:1")
    assert (job["limit"], job["memory"]) == ("14:00:00", "3000M")
    assert (scratch / job["id"]).is_dir()


def test_cancelled_jobs_are_repeated_and_train_nothing_again(cluster, local, fresh):
    """Cancelled by somebody, first in the middle of the training, then after it."""
    before = set(cluster.jobs())
    with fresh.running(EVALUATION, *PROFILE):
        wait_for_epoch(fresh, 3)
        cluster.cancel(running_cell(cluster, before))
        wait_for(lambda: len(cell_jobs(cluster, before)) == 2, LIMIT, "the second attempt")
        wait_for((fresh.path / RESULTS / CELL / "model.safetensors").exists, LIMIT, "a network")
        assert resumed_after(fresh) >= 3
        cluster.cancel(running_cell(cluster, before))
    assert resumed_after(fresh) == EPOCHS
    assert_same_cell(local, fresh)
    jobs = cell_jobs(cluster, before)
    assert [row["state"] for row in jobs] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert [row["limit"] for row in jobs] == ["6:00:00", "12:00:00", "18:00:00"]
    assert [row["memory"] for row in jobs] == ["3000M", "6000M", "9000M"]


def test_a_restarted_controller_and_a_dead_node(cluster, local, fresh):
    before = set(cluster.jobs())
    with fresh.running(EVALUATION, *PROFILE):
        wait_for_epoch(fresh, 3)
        cluster.stop_controller()
        wait_for_epoch(fresh, 5)
        cluster.start_controller()
        (job,) = wait_for(lambda: cell_jobs(cluster, before), LIMIT, "the controller")
        assert job["state"] == "RUNNING"
        cluster.kill_node(job["node"])
        wait_for(lambda: cell_jobs(cluster, before)[0]["state"] == "NODE_FAIL", LIMIT, "NODE_FAIL")
    cluster.start_node(job["node"])
    assert resumed_after(fresh) >= 5
    assert_same_cell(local, fresh)
    states = [row["state"] for row in cell_jobs(cluster, before)]
    assert states == ["NODE_FAIL", "COMPLETED"]


def test_a_job_over_its_memory_and_then_over_its_time(cluster, local, fresh):
    before = set(cluster.jobs())
    memory = f"train:mem_mb={TOO_LITTLE}*attempt**3"
    with fresh.running(EVALUATION, *PROFILE, "--set-resources", memory, "attack:mem_mb=1"):
        wait_for(lambda: len(cell_jobs(cluster, before)) == 2, LIMIT, "the second attempt")
        wait_for_epoch(fresh, 3)
        # It hangs, and its time runs out: a minute is the least that Slurm knows.
        os.kill(slurm.find_process("workflow/scripts/train.py", CELL), signal.SIGSTOP)
        cluster.update(f"JobId={running_cell(cluster, before)}", "TimeLimit=1")
    assert resumed_after(fresh) >= 3
    assert_same_cell(local, fresh)
    jobs = cell_jobs(cluster, before)
    assert [row["state"] for row in jobs] == ["FAILED", "TIMEOUT", "COMPLETED"]
    assert [row["limit"] for row in jobs] == ["6:00:00", "1:00", "18:00:00"]
    assert [row["memory"] for row in jobs] == [f"{TOO_LITTLE * n**3}M" for n in (1, 2, 3)]


def test_snakemake_is_killed_and_started_again(cluster, local, fresh):
    before = set(cluster.jobs())
    with contextlib.suppress(AssertionError), fresh.running(EVALUATION, *PROFILE) as run:
        wait_for_epoch(fresh, 3)
        os.killpg(run.pid, signal.SIGKILL)
    # As the README says: its jobs know nothing of its end.
    (job,) = cell_jobs(cluster, before)
    assert job["state"] == "RUNNING"
    text = (fresh.path / "snakemake.log").read_text()
    cluster.cancel("--name", re.search(r"SLURM run ID: (\S+)", text)[1])
    wait_for(lambda: cell_jobs(cluster, before)[0]["state"] == "CANCELLED", LIMIT, "the job's end")
    fresh.run("--unlock")
    fresh.run(SUMMARY, *PROFILE)
    assert resumed_after(fresh) >= 3
    assert_same_tables(local, fresh)
    assert not list(fresh.path.rglob("checkpoint.pt"))
    assert [row["state"] for row in cell_jobs(cluster, before)] == ["CANCELLED"] + CELLS * [
        "COMPLETED"
    ]
