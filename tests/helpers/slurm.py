"""A throw-away Slurm on one machine: controller and nodes on loopback, everything in one folder.

No systemd, cgroups, accounting or database: Debian's slurmctld, slurmd and munge, started by hand.
"""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")
INSTALL = "apt-get install --no-install-recommends slurmctld slurmd slurm-client munge"
NODES = ("n1", "n2", "n3")

CONFIGURATION = """\
ClusterName=throwaway
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.sock
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MpiDefault=none
SwitchType=switch/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=60
MinJobAge=86400
KillWait=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
GresTypes=gpu
NodeName=n1 {node} Port={ports[1]}
NodeName=n2 {node} Port={ports[2]}
NodeName=n3 {node} Port={ports[3]} Gres=gpu:1
PartitionName=cpu Nodes=n[1-2] Default=YES MaxTime=INFINITE State=UP
PartitionName=gpu Nodes=n3 MaxTime=INFINITE State=UP
"""
# Without a device file the node would be invalid; jobs see CUDA_VISIBLE_DEVICES=0.
GPUS = "NodeName=n3 Name=gpu Count=1 File=/dev/null\n"
# The executor drops SLURM_CONF before it calls srun.
SRUN = '#!/bin/sh\nSLURM_CONF={folder}/slurm.conf exec {srun} "$@"\n'
# The cluster has no accounting: what the executor asks sacct, squeue answers.
SACCT = """\
#!/bin/sh
for last; do :; done
exec squeue --states=all --noheader --format='%i|%T' --name "$last"
"""


def missing() -> str | None:
    """Return why Slurm cannot be started here, or None."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed ({', '.join(absent)} not found); as root: {INSTALL}"
    if os.geteuid() != 0:
        return "The throw-away Slurm of these tests needs root: its nodes start jobs as any user"
    return None


def wait_for(condition, seconds: float, what: str, step: float = 0.05):
    """Return the first true value of ``condition()``; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(step)
    return value


def free_ports(n: int) -> list[int]:
    """Return ports on which nobody listens, below those that any connection may take meanwhile."""
    with contextlib.ExitStack() as stack:
        ports = []
        while len(ports) < n:
            one = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                one.bind(("127.0.0.1", random.randrange(10_000, 32_000)))
                ports.append(one.getsockname()[1])
        return ports


def ended(pid: int) -> bool:
    """Return whether a process is gone; a container's init may leave it as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def stop_tree(pid: int, kill=signal.SIGKILL) -> None:
    """Kill a process and everything that it started, also what left its process group."""
    children = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True)
    try:
        os.kill(pid, kill)
    except ProcessLookupError:
        return
    for child in children.stdout.split():
        stop_tree(int(child), kill)


def find_process(folder: Path, *texts: str) -> int | None:
    """Return the Python process in a folder whose command line holds all texts."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_text().split("\0")
            if (
                words[0].endswith("python")
                and all(any(text in word for word in words) for text in texts)
                and (process / "cwd").readlink() == folder
            ):
                return int(process.name)
    return None


class Slurm:
    """The cluster: partition ``cpu`` with nodes n1 and n2, partition ``gpu`` with n3."""

    def __init__(self):
        # Not below pytest's folder: munge wants one that everybody may enter.
        folder = self.folder = Path(tempfile.mkdtemp(prefix="throwaway-slurm-"))
        folder.chmod(0o755)
        bin_ = folder / "bin"
        for name in ("state", "spool", "log", "run", "bin"):
            (folder / name).mkdir(parents=True)
        host = socket.gethostname()
        node = f"NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 RealMemory=16000"
        text = CONFIGURATION.format(host=host, folder=folder, node=node, ports=free_ports(4))
        (folder / "slurm.conf").write_text(text)
        (folder / "gres.conf").write_text(GPUS)
        for name, text in (
            ("srun", SRUN.format(folder=folder, srun=shutil.which("srun"))),
            ("sacct", SACCT),
        ):
            (bin_ / name).write_text(text)
            (bin_ / name).chmod(0o755)
        self.environment = os.environ | {
            "SLURM_CONF": str(folder / "slurm.conf"),
            "PATH": f"{bin_}:{os.environ['PATH']}",
        }

    def start(self) -> None:
        """Start every daemon and wait until all nodes are idle."""
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        run, log = self.folder / "run", self.folder / "log"
        self._daemon(
            *("munged", f"--key-file={key}", f"--socket={run}/munge.sock"),
            *(f"--pid-file={run}/munged.pid", f"--log-file={log}/munged.log"),
            f"--seed-file={self.folder}/state/munge.seed",
        )
        self.start_controller()
        for node in NODES:
            self.start_node(node)
        wait_for(lambda: self.states() == ["idle"] * len(NODES), 120, "idle nodes")

    def processes(self) -> list[int]:
        """Return every process that this cluster has started, and those of Snakemake that use it."""
        mine, found = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode(), []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine in (process / "environ").read_bytes().split(b"\0"):
                    found.append(int(process.name))
        return found

    def stop(self) -> None:
        """Kill every daemon and every job, whatever state they are in, and remove the folder."""

        def killed() -> bool:
            for pid in (found := self.processes()):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return not found

        wait_for(killed, 60, "the end of all processes")
        shutil.rmtree(self.folder)

    def start_controller(self) -> None:
        self._daemon("slurmctld", "-f", f"{self.folder}/slurm.conf")

    def stop_controller(self) -> None:
        """Stop it as an administrator would, its state saved (never by SIGKILL)."""
        path = self.folder / "run/slurmctld.pid"
        pid = int(path.read_text())
        os.kill(pid, signal.SIGTERM)
        wait_for(lambda: ended(pid), 60, "the controller to stop")

    def start_node(self, node: str) -> None:
        self._daemon("slurmd", "-N", node, "-f", f"{self.folder}/slurm.conf")

    def kill_node(self, node: str) -> None:
        """Kill the node's daemon and all jobs on it at once, as a power cut does."""
        path = self.folder / f"run/slurmd.{node}.pid"
        here = [job for job, row in self.jobs().items() if row["node"] == node]
        steps = []
        for pid in self.processes():
            with contextlib.suppress(FileNotFoundError):
                title = Path(f"/proc/{pid}/cmdline").read_text()
                if any(title.startswith(f"slurmstepd: [{job}.") for job in here):
                    steps.append(pid)
        for pid in (int(path.read_text()), *steps):
            stop_tree(pid)
        path.unlink()
        # What Slurm finds out by itself when the node has not answered for SlurmdTimeout.
        self.update(f"NodeName={node}", "State=DOWN", "Reason=died")

    def update(self, *what: str) -> None:
        """Change a job or a node as an administrator."""
        command = ["scontrol", "update", *what]
        subprocess.run(command, env=self.environment, check=True, timeout=60)

    def states(self) -> list[str]:
        return self._text("sinfo", "-h", "-N", "-o", "%T").split()

    def jobs(self) -> dict[str, dict[str, str]]:
        """Return state, node, time allowed, memory, GPUs and comment of every job since the start."""
        keys = ("state", "node", "limit", "memory", "gpus", "comment")
        fields = ("State", "NodeList", "TimeLimit", "MinMemory", "tres-per-job", "Comment")
        columns = ",".join(f"{field}:|" for field in ("JobID", *fields))
        text = self._text("squeue", "--noheader", "--states=all", f"--Format={columns}")
        rows = [line.split("|")[:-1] for line in text.splitlines()]
        return {row[0]: dict(zip(keys, row[1:], strict=True)) for row in rows}

    def cancel(self, *arguments: str) -> None:
        subprocess.run(["scancel", *arguments], env=self.environment, check=True, timeout=60)

    def _text(self, *command: str) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, timeout=60
        )
        return done.stdout

    def _daemon(self, *command: str) -> None:
        done = subprocess.run(
            command,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command[0]}: {done.stdout}{done.stderr}"
