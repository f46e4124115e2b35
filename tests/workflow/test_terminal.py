"""What a person at a terminal sees."""

import os
import pty
import subprocess
import termios

import pytest
from helpers.repository import ENVIRONMENT, EVERYTHING, Repository, copy_tree

pytestmark = pytest.mark.slow

DATA = "data/digits.safetensors"
MODEL = "results/everything/digits/none/lam~0/seed~0/model.safetensors"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    return Repository(copy_tree(tmp_path_factory.mktemp("clone")))


def at_terminal(repository, *arguments):
    """Run Snakemake at a pseudo terminal; return all that it wrote there."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    process = subprocess.Popen(
        repository.command("--cores", "1", *arguments, "--configfile", EVERYTHING),
        cwd=repository.path,
        env=ENVIRONMENT | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    written = b""
    try:
        while part := os.read(ours, 65536):
            written += part
    except OSError:  # how Linux says that nobody writes any more
        pass
    os.close(ours)
    process.wait()
    return written.decode()


def test_a_bar_of_jobs_at_a_terminal_and_the_end_says_what_was_made(repository):
    shown = at_terminal(repository, DATA)
    assert "0 of 1 jobs |" in shown
    assert "1 of 1 steps" not in shown
    end = shown.rpartition("jobs |")[2]
    assert "Data:     data" in end
    assert "Notebook" not in shown
    assert "Figures" not in shown


def test_a_failed_job_shows_its_log_above_the_bar(repository):
    data = repository.path / DATA
    if not data.exists():
        repository.snakemake("--cores", "1", DATA)
    data.write_bytes(data.read_bytes()[:-1])
    shown = at_terminal(repository, MODEL)
    log = "logs/everything/train/digits/none/lam~0/seed~0.log"
    assert f"Logfile {log}:" in shown
    assert "error: " in shown.partition(f"Logfile {log}:")[2]
    assert shown.rstrip().endswith("At least one job did not complete successfully.\x1b[0m")
    end = shown.rpartition("jobs |")[2]
    assert "Not everything was computed." in end
    assert log in end
