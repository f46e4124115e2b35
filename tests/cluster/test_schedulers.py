"""The workflow through a real Slurm, and a stand-in of PBS: as a local run, also after faults."""

import contextlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from helpers import slurm
from helpers.pbs import KILLED, Pbs
from helpers.repository import ENVIRONMENT, EVERYTHING, Repository, copy_tree
from helpers.slurm import wait_for

pytestmark = pytest.mark.cluster

NAME, EPOCHS = "small", 25
CONFIG = ("--configfile", EVERYTHING, "config/small.yaml")
RESULTS, CELLS = f"results/{NAME}/digits", ("none/lam~0/seed~0", "hessian/lam~1/seed~0")
CELL = CELLS[1]
CERTIFIED = ("none/lam~0/seed~0", "hessian/lam~1/seed~0")
SUMMARY = f"reports/{NAME}/tables/summary.csv"
RECOVERY = f"results/{NAME}/recovery/digits/hessian/lam~1.csv"
MEASUREMENTS = (SUMMARY, RECOVERY)
EVALUATIONS = [f"{RESULTS}/{cell}/evaluation.json" for cell in CELLS]
EVALUATION = EVALUATIONS[1]
SLURM = ("--workflow-profile", "profiles/slurm")
PBS = ("--workflow-profile", "profiles/cluster-generic", "--seconds-between-status-checks", "1")
TIMES = ["train_seconds", "milliseconds_per_step", "peak_memory_mb", "seconds"]
SECONDS, LIMIT = 3600, 1200  # no run, and nothing that is waited for, may take longer
TOO_LITTLE = 450  # MB: less than what Snakemake, in a job, and PyTorch need together
# The plugin looks for its jobs after 40 s, and after every further look waits 10 s longer.
IMPATIENT = """
import asyncio
from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor
async def sleep(self):
    await asyncio.sleep(1)
Executor.sleep = sleep
main()
"""


# The tests' configuration, reduced to two cells of seconds.
SMALL = {
    "name": NAME,
    "seeds": [0],
    "training": {"epochs": EPOCHS},
    "regularizers": dict.fromkeys(
        ("gradient", "taylor", "cure", "jacobian", "adversarial-linf", "adversarial-l2", "trades")
    )
    | {"hessian": {"lam": [1]}},
    "evaluation": {
        "images": 10,
        "attacks": [
            {"attack": "fgsm", "norm": "linf"},
            {"attack": "pgd", "norm": "linf", "steps": 2, "restarts": 2},
            {"attack": "pgd", "norm": "l2", "steps": 2, "restarts": 2},
            {"attack": "ddn", "norm": "l2", "steps": 2},
            *(
                {"attack": attack, "norm": norm}
                for attack in ("apgd-ce", "apgd-t")
                for norm in ("linf", "l2")
            ),
        ],
    },
    "masking": {"images": 10},
    "curvature": {"images": 10},
    "path": {"images": 10, "points": 5},
    "selection": {"images": 10},
    "stronger_attacks": {"images": 10, "attacks": [{"attack": "fab-t", "norm": "linf"}]},
    "recovery": {"lam": [1], "images": 16, "progress": [0, 1], "hvps": [1, 3], "draws": 1},
}


class Checkout(Repository):
    """A copy of the repository with the small configuration."""

    def __init__(self, path: Path, environment: dict[str, str], *, impatient: bool = False):
        super().__init__(copy_tree(path.resolve()))
        self.environment = environment
        self.impatient = impatient
        (self.path / "config/small.yaml").write_text(yaml.safe_dump(SMALL))

    def command(self, *arguments: str) -> list[str]:
        if self.impatient:
            return [sys.executable, "-c", IMPATIENT, *arguments]
        return super().command(*arguments)

    @contextlib.contextmanager
    def running(self, *arguments: str, killed: bool = False):
        """Run Snakemake in the background; on leaving, it must have ended well, or been killed."""
        log = self.path / "snakemake.log"
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                self.command(*arguments, *CONFIG),
                cwd=self.path,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Not inherited: a shell's background processes ignore interrupts.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            yield self.process
            assert (self.process.wait(timeout=SECONDS) != 0) == killed, log.read_text()[-6000:]
        finally:
            slurm.stop_tree(self.process.pid)
            self.process.wait()

    def run(self, *arguments: str) -> str:
        """Run Snakemake and return what it wrote."""
        with self.running(*arguments):
            pass
        return self.output()

    def output(self) -> str:
        return (self.path / "snakemake.log").read_text()

    def wait_for(self, condition, what: str):
        """Wait for something that happens while Snakemake runs."""

        def happened():
            assert self.process.poll() is None, self.output()[-6000:]
            return condition()

        return wait_for(happened, LIMIT, what)

    def training_log(self) -> str:
        path = self.path / f"logs/{NAME}/train/digits/{CELL}.log"
        return path.read_text() if path.exists() else ""

    def training_process(self, epoch: int) -> int | None:
        """The process that trains the cell, if it has finished an epoch of this number or later."""
        # First the process: what it has not written itself is not in its log any more.
        process = slurm.find_process(self.path, "workflow/scripts/train.py", f"{RESULTS}/{CELL}")
        epochs = re.findall(rf"^epoch (\d+)/{EPOCHS}:", self.training_log(), re.MULTILINE)
        return process if epochs and int(epochs[-1]) >= epoch else None

    def hold_training(self, epoch: int) -> int:
        """Wait for an epoch and stop the training there, so that what follows meets it."""
        process = self.wait_for(lambda: self.training_process(epoch), f"epoch {epoch}")
        os.kill(process, signal.SIGSTOP)
        return process

    def resumed_after(self) -> int:
        """The epoch that a repeated training took from its checkpoint."""
        return int(re.search(r"resuming after epoch (\d+)", self.training_log())[1])


def unavailable(reason: str) -> None:
    """Skip what needs a scheduler, unless CI has installed it."""
    if os.environ.get("SLURM_EXPECTED"):
        pytest.fail(reason)
    pytest.skip(reason)


def need_plugin(name: str) -> None:
    if importlib.util.find_spec(f"snakemake_executor_plugin_{name}") is None:
        unavailable(
            f"Snakemake's {name} plugin is missing: uv run --group cluster pytest -m cluster"
        )


@pytest.fixture(scope="session")
def cluster():
    """A Slurm of three nodes; tests that need it are skipped where it cannot be started."""
    if reason := slurm.missing():
        unavailable(reason)
    need_plugin("slurm")
    # A run that is terminated stops its daemons as one that is interrupted.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = slurm.Slurm()
    try:
        try:
            started.start()
        except (AssertionError, OSError, subprocess.SubprocessError) as error:
            unavailable(f"Slurm is installed but does not start here: {error}")
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
    return Checkout(tmp_path_factory.mktemp("remote"), environment, impatient=True)


@pytest.fixture
def fresh(remote):
    """The copy without results, and without jobs of another test."""
    for folder in ("results", "reports", "logs"):
        shutil.rmtree(remote.path / folder, ignore_errors=True)
    return remote


@pytest.fixture
def pbs(tmp_path):
    need_plugin("cluster_generic")
    started = Pbs(tmp_path / "pbs")
    yield started
    started.stop()


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


def assert_same_cells(local: Checkout, remote: Checkout, cells=(CELL,)) -> None:
    for cell in cells:
        for name in ("model.safetensors", "images.parquet", "examples.safetensors"):
            expected, found = (
                (c.path / RESULTS / cell / name).read_bytes() for c in (local, remote)
            )
            assert found == expected, name


def cell_jobs(cluster: slurm.Slurm, before: set[str]) -> list[dict[str, str]]:
    """Jobs that train cells and came after ``before``, in the order of their submission."""
    jobs = {int(job): row for job, row in cluster.jobs().items() if job not in before}
    return [
        jobs[job] | {"id": str(job)}
        for job in sorted(jobs)
        if "train" in jobs[job]["comment"] and "certif" not in jobs[job]["comment"]
    ]


def running_cell(cluster: slurm.Slurm, before: set[str]) -> str:
    """The one job of a cell that runs."""
    (job,) = (row["id"] for row in cell_jobs(cluster, before) if row["state"] == "RUNNING")
    return job


def test_cluster_computes_what_a_local_run_computes(cluster, local, fresh):
    before = set(cluster.jobs())
    fresh.run(*MEASUREMENTS, *SLURM)
    assert_same_tables(local, fresh)
    assert not list(fresh.path.rglob("checkpoint.pt"))
    assert (fresh.path / RECOVERY).read_text() == (local.path / RECOVERY).read_text()
    # One submission per cell, one for the stronger attacks on the selected networks, and one per
    # measurement: recovery, and the cost of a step, which the tables need, as they need what is certified
    # of each small network. Data and tables are made where Snakemake runs.
    jobs = [row for job, row in cluster.jobs().items() if job not in before]
    assert len(jobs) == len(CELLS) + 3 + len(CERTIFIED)
    assert len(cell_jobs(cluster, before)) == len(CELLS)
    assert {row["state"] for row in jobs} == {"COMPLETED"}
    assert "Nothing to be done" in fresh.run(*MEASUREMENTS, *SLURM)


def test_bundled_cells_on_one_gpu_and_a_scratch_folder(cluster, local, fresh):
    """Two cells in one job, in turn: minutes add up, memory and GPUs do not."""
    before = set(cluster.jobs())
    scratch = cluster.folder / "scratch"
    fresh.run(
        *EVALUATIONS,
        *SLURM,
        *("--group-components", "cell=2"),
        *("--set-resources", "train:gpu=1", "evaluate:gpu=1"),
        *("--default-resources", "in_turn=1", "slurm_partition=gpu"),
        f"tmpdir={scratch}/$SLURM_JOB_ID",
        "--slurm-keep-successful-logs",
    )
    assert_same_cells(local, fresh, CELLS)
    (job,) = cell_jobs(cluster, before)
    assert (job["state"], job["node"], job["gpus"]) == ("COMPLETED", "n3", "gres:gpu:1")
    assert (job["limit"], job["memory"]) == ("12:00:00", "3000M")
    assert (scratch / job["id"]).is_dir()
    (log,) = fresh.path.glob(f".snakemake/slurm_logs/*/{job['id']}.log")
    assert set(re.findall(r"^Execute .*", log.read_text(), re.MULTILINE)) == {"Execute 1 jobs..."}


def test_cancelled_jobs_are_repeated_and_train_nothing_again(cluster, local, fresh):
    """Cancelled by somebody, first in the middle of the training, then after it."""
    before = set(cluster.jobs())
    with fresh.running(EVALUATION, *SLURM):
        fresh.hold_training(3)
        cluster.cancel(running_cell(cluster, before))
        fresh.wait_for(lambda: len(cell_jobs(cluster, before)) == 2, "the second attempt")
        fresh.wait_for((fresh.path / RESULTS / CELL / "model.safetensors").exists, "a network")
        assert fresh.resumed_after() >= 3
        cluster.cancel(running_cell(cluster, before))
    assert fresh.resumed_after() == EPOCHS
    assert_same_cells(local, fresh)
    jobs = cell_jobs(cluster, before)
    assert [row["state"] for row in jobs] == ["CANCELLED", "CANCELLED", "COMPLETED"]
    assert [row["limit"] for row in jobs] == ["6:00:00", "12:00:00", "18:00:00"]
    assert [row["memory"] for row in jobs] == ["3000M", "6000M", "9000M"]


def test_a_restarted_controller_and_a_dead_node(cluster, local, fresh):
    before = set(cluster.jobs())
    with fresh.running(EVALUATION, *SLURM):
        training = fresh.hold_training(1)
        cluster.stop_controller()
        os.kill(training, signal.SIGCONT)
        fresh.hold_training(5)
        cluster.start_controller()
        (job,) = fresh.wait_for(lambda: cell_jobs(cluster, before), "the controller")
        assert job["state"] == "RUNNING"
        cluster.kill_node(job["node"])
        fresh.wait_for(lambda: cell_jobs(cluster, before)[0]["state"] == "NODE_FAIL", "NODE_FAIL")
    cluster.start_node(job["node"])
    assert fresh.resumed_after() >= 5
    assert_same_cells(local, fresh)
    states = [row["state"] for row in cell_jobs(cluster, before)]
    assert states == ["NODE_FAIL", "COMPLETED"]


def test_a_job_over_its_memory_and_then_over_its_time(cluster, local, fresh):
    before = set(cluster.jobs())
    memory = f"train:mem_mb={TOO_LITTLE}*attempt**3"
    with fresh.running(EVALUATION, *SLURM, "--set-resources", memory, "evaluate:mem_mb=1"):
        fresh.wait_for(lambda: len(cell_jobs(cluster, before)) == 2, "the second attempt")
        fresh.hold_training(3)
        assert cell_jobs(cluster, before)[1]["limit"] == "12:00:00"
        # Slurm counts minutes and looks at them twice a minute: the limit is now.
        cluster.update(f"JobId={running_cell(cluster, before)}", "EndTime=now")
    assert fresh.resumed_after() >= 3
    assert_same_cells(local, fresh)
    jobs = cell_jobs(cluster, before)
    assert [row["state"] for row in jobs] == ["FAILED", "TIMEOUT", "COMPLETED"]
    assert [jobs[i]["limit"] for i in (0, 2)] == ["6:00:00", "18:00:00"]
    assert [row["memory"] for row in jobs] == [f"{TOO_LITTLE * n**3}M" for n in (1, 2, 3)]


def test_snakemake_is_killed_and_started_again(cluster, local, fresh):
    before = set(cluster.jobs())
    with fresh.running(EVALUATION, *SLURM, killed=True) as run:
        fresh.hold_training(3)
        os.killpg(run.pid, signal.SIGKILL)
    # As the README says: its jobs know nothing of its end.
    (job,) = cell_jobs(cluster, before)
    assert job["state"] == "RUNNING"
    cluster.cancel("--name", re.search(r"SLURM run ID: (\S+)", fresh.output())[1])
    wait_for(lambda: cell_jobs(cluster, before)[0]["state"] == "CANCELLED", LIMIT, "the job's end")
    fresh.run("--unlock")
    fresh.run(*EVALUATIONS, *SLURM)
    assert fresh.resumed_after() >= 3
    assert_same_cells(local, fresh, CELLS)
    states = [row["state"] for row in cell_jobs(cluster, before)]
    assert states == ["CANCELLED", *len(CELLS) * ["COMPLETED"]]


def test_pbs_is_asked_for_what_a_cell_needs_and_for_more_after_a_failure(
    pbs, local, tmp_path_factory
):
    environment = ENVIRONMENT | {"PATH": f"{pbs.folder}/bin:{ENVIRONMENT['PATH']}"}
    checkout = Checkout(tmp_path_factory.mktemp("pbs"), environment)
    with checkout.running(EVALUATION, *PBS, "--set-resources", "train:gpu=1", killed=True) as run:
        checkout.hold_training(3)
        run.send_signal(signal.SIGINT)
    assert [job["exit"] for job in pbs.jobs()] == [KILLED]
    with checkout.running(EVALUATION, *PBS):
        checkout.hold_training(4)
        assert checkout.resumed_after() >= 3
        pbs.delete("2")
    assert checkout.resumed_after() >= 4
    assert_same_cells(local, checkout)
    jobs = pbs.jobs()
    assert [job["exit"] for job in jobs] == [KILLED, KILLED, 0]
    assert [job["l"] for job in jobs] == [
        ["select=1:ncpus=1:mem=3000mb:ngpus=1", f"walltime={6 * 3600}"],
        ["select=1:ncpus=1:mem=3000mb", f"walltime={6 * 3600}"],
        ["select=1:ncpus=1:mem=6000mb", f"walltime={12 * 3600}"],
    ]
    assert {job["N"] for job in jobs} == {"cell_evaluate_train"}
    logs = checkout.path / ".snakemake/pbs_logs"
    assert sorted(path.name for path in logs.iterdir()) == ["1.OU", "2.OU", "3.OU"]
    executed = re.findall(r"^Execute .*", (logs / "3.OU").read_text(), re.MULTILINE)
    assert set(executed) == {"Execute 1 jobs..."}
