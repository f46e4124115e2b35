"""A copy of the working tree in which Snakemake really runs."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
EVERYTHING = "tests/workflow/everything.yaml"  # every penalty, attack and section, on small data
COLLECTIVE = ("all", "default", "figures", "tables", "total")  # compute nothing themselves


# Without what a machine may have set that changes how Python writes.
ENVIRONMENT = dict(os.environ)
ENVIRONMENT.pop("PYTHONUNBUFFERED", None)


def copy_tree(target: Path) -> Path:
    """Copy what git tracks or would track, so that the copy is what a clone would hold."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


class Repository:
    """A copy of the repository in which Snakemake is run."""

    def __init__(self, path: Path):
        self.path = path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "snakemake", *arguments]

    def snakemake(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run Snakemake with the configuration of these tests; the text of both streams is in stdout."""
        if "--configfile" not in arguments:
            arguments = (*arguments, "--configfile", EVERYTHING)
        done = subprocess.run(
            self.command(*arguments),
            cwd=self.path,
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert not check or done.returncode == 0, done.stdout[-6000:]
        return done

    def planned(self, *arguments: str) -> dict[str, int]:
        """Return how many jobs of each rule a dry run plans."""
        text = self.snakemake("-n", *arguments).stdout
        if "Nothing to be done" in text:
            return {}
        table = re.search(r"^Job stats:\njob +count\n[- ]+\n(.*?)\n\n", text, re.DOTALL | re.M)[1]
        counts = {rule: int(count) for rule, count in map(str.split, table.splitlines())}
        return {rule: n for rule, n in counts.items() if rule not in COLLECTIVE}

    def write_config(self, name: str, **changes) -> tuple[str, str]:
        """Write a configuration of its own, named after its file; return the option that takes it."""
        path = self.path / "config" / f"{name}.yaml"
        path.write_text(yaml.safe_dump({"name": name} | changes, sort_keys=False))
        return "--configfile", f"config/{name}.yaml"
