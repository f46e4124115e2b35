"""Where a result comes from: code, versions, machine."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

import torch

# Variables by which a user chooses among a library's instructions, and so how it rounds.
ROUNDING = "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA", "OPENBLAS_CORETYPE"


def environment(device: torch.device, threads: int) -> dict[str, str | int]:
    """Return versions, commit and hardware as a flat dictionary of strings and integers."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": version("numpy"),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "processor": _processor(),
        "arithmetic": arithmetic(),
        "threads": threads,
    }


def arithmetic() -> str:
    """Return what changes the bits of a result on one machine: instructions, libraries, modes."""
    allowed = {
        "oneDNN": torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "TF32": torch.get_float32_matmul_precision() != "highest"
        or torch.backends.cudnn.allow_tf32,
    }
    on = [name if there else f"no {name}" for name, there in allowed.items()]
    on += [f"{name}={os.environ[name]}" for name in ROUNDING if os.environ.get(name)]
    return ", ".join([torch.backends.cpu.get_cpu_capability(), *on])


def peak_memory_mb(device: torch.device) -> float:
    """Return this process's peak memory in MB: resident memory, or allocated on a CUDA device."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # macOS counts bytes, Linux KiB


def fingerprint(settings: dict, where: dict[str, str | int], files: Iterable[str | Path]) -> str:
    """Return the SHA-256 of what a job's result depends on: a job resumes only what it matches.

    Args:
        settings: of the job; the order of keys does not matter.
        where: from :func:`environment`, of which version, device, arithmetic and threads change results.
        files: code and data, whose contents count.
    """
    texts = [json.dumps(settings, sort_keys=True)]
    texts += [f"{key}={where[key]}" for key in ("torch", "device", "arithmetic", "threads")]
    digest = hashlib.sha256()
    for part in [*(text.encode() for text in texts), *(Path(file).read_bytes() for file in files)]:
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.hexdigest()


def commit(source: Path = Path(__file__)) -> str:
    """Return the short commit that a source file is of, with ``-dirty`` if code or config differ.

    Code that git does not track yet counts as a difference. ``"unknown"`` where git does not track the file: sources that were unpacked inside a repository
    of something else must not pass for a commit of that.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source.parent), *arguments]
        # Inside a hook, git's variables name the repository that the hook is of.
        outside = {name: v for name, v in os.environ.items() if not name.startswith("GIT_")}
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=outside)
        return done.stdout.strip()

    try:
        git("ls-files", "--error-unmatch", source.name)
        short = git("rev-parse", "--short=7", "HEAD")  # whatever the user's core.abbrev
        # Not reports/: the run itself redraws figures that are tracked there.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/", ":/!reports")
        changed += git("ls-files", "--others", "--exclude-standard", "--", ":/src", ":/workflow")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{short}-dirty" if changed else short


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
