"""Stand-ins for the commands of PBS Professional: a job is a process on this machine.

Nothing is scheduled, limited or killed for what it uses; what was asked for is written down.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

COMMAND = '#!/bin/sh\nexec "{python}" "{script}" {folder} {name} "$@"\n'
# Where a job starts is not where it was submitted.
JOB = 'cd / && sh "$0/script" > "$1" 2>&1; echo $? > "$0/exit.new"; mv "$0/exit.new" "$0/exit"'
KILLED = 271  # 256 and the number of the signal, as PBS says it


class Pbs:
    """Where the jobs are recorded, and the commands in ``bin``."""

    def __init__(self, folder: Path):
        self.folder = folder
        (folder / "bin").mkdir(parents=True)
        (folder / "jobs").mkdir()
        for name in ("qsub", "qstat", "qdel"):
            command = folder / "bin" / name
            text = COMMAND.format(python=sys.executable, script=__file__, folder=folder, name=name)
            command.write_text(text)
            command.chmod(0o755)

    def jobs(self) -> list[dict]:
        """Return what was asked for each job, its ID and how it ended, in the order of submission."""
        paths = sorted((self.folder / "jobs").iterdir(), key=lambda path: int(path.name))
        return [
            json.loads((path / "request").read_text()) | {"id": path.name, "exit": ended(path)}
            for path in paths
        ]

    def delete(self, job: str) -> None:
        """Delete a job, as an administrator or a limit does."""
        delete(self.folder / "jobs" / job)

    def stop(self) -> None:
        for job in self.jobs():
            self.delete(job["id"])


def ended(job: Path) -> int | None:
    path = job / "exit"
    return int(path.read_text()) if path.exists() else None


def delete(job: Path) -> None:
    if ended(job) is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(int((job / "pid").read_text()), signal.SIGKILL)
        (job / "exit").write_text(f"{KILLED}\n")


def qsub(jobs: Path, arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for option in ("-A", "-N", "-j", "-o", "-q", "-r"):
        parser.add_argument(option)
    parser.add_argument("-V", action="store_true")
    parser.add_argument("-l", action="append")
    parser.add_argument("script", type=Path)
    options = vars(parser.parse_args(arguments))
    job = jobs / str(1 + len(list(jobs.iterdir())))
    job.mkdir()
    (job / "script").write_bytes(options.pop("script").read_bytes())
    (job / "request").write_text(json.dumps(options))
    output = Path(options["o"], f"{job.name}.OU").absolute()
    assert output.parent.is_dir()
    process = subprocess.Popen(
        ["sh", "-c", JOB, job, output],
        env=os.environ | {"PBS_JOBID": job.name},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    (job / "pid").write_text(str(process.pid))
    print(f"{job.name}.standin")


def qstat(jobs: Path, arguments: list[str]) -> None:
    *options, job = arguments
    assert options == ["-x", "-f"]
    code = ended(jobs / job.removesuffix(".standin"))
    print(f"Job Id: {job}\n    job_state = {'R' if code is None else 'F'}")
    if code is not None:
        print(f"    Exit_status = {code}")


def qdel(jobs: Path, arguments: list[str]) -> None:
    for job in arguments:
        delete(jobs / job.removesuffix(".standin"))


if __name__ == "__main__":
    {"qsub": qsub, "qstat": qstat, "qdel": qdel}[sys.argv[2]](
        Path(sys.argv[1], "jobs"), sys.argv[3:]
    )
