"""Measure what planning costs Snakemake, against the number of cells: dry runs of generated configs.

Time is that of the processor, with the wall clock beside it: a busy machine changes the one little.
Planned is everything, and one cell alone, as each job of a cluster plans it again.  Then the experiment is really started, and stopped after a few jobs: what
Snakemake itself computes between one job and the next grows with the cells, too.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import psutil
import yaml
from readme import write_table

from input_hessian.experiment.files import write_atomically

HERE = Path(__file__).parent
ROOT = HERE.parent
# Cells: one without penalty and so many lam of the Hessian penalty, times so many seeds.
SIZES = {50: (9, 5), 500: (24, 20), 5000: (99, 50)}
ONE_CELL = "results/scaling/digits/hessian/lam~0.1/seed~0/evaluation.json"
PLANS = {"everything": [], "one cell": [ONE_CELL]}  # what is planned: targets
RUN = "a job, while running"
COLUMNS = ["cells", "plan", "jobs", "run", "cpu_seconds", "wall_seconds", "peak_memory_mb"]
COLUMNS += ["snakemake", "python"]


def configuration(lams: int, seeds: int) -> dict:
    """Return what differs from the demo: so many lam of the Hessian penalty, and so many seeds."""
    others = ("gradient", "adversarial-l2")
    return {
        "name": "scaling",
        "seeds": list(range(seeds)),
        "regularizers": dict.fromkeys(others)
        | {"hessian": {"lam": [round(0.1 * (i + 1), 1) for i in range(lams)]}},
        "recovery": {"lam": [0.1]},
        "certificate": {"regularizers": [{"name": "none", "lam": 0}]},
    }


def dry_run(folder: Path, targets: list[str]) -> dict[str, float]:
    """Run ``snakemake -n`` in ``folder``; return jobs, seconds and peak memory of its process."""
    command = [sys.executable, "-m", "snakemake", *targets, "-n"]
    command += ["--configfile", "config/demo.yaml", "config/scaling.yaml"]
    log = folder / "snakemake.log"
    with log.open("w") as stream:
        began = time.perf_counter()
        process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - began
    text = log.read_text()
    if status:
        raise SystemExit(f"snakemake -n failed:\n{text[-2000:]}")
    return {
        "jobs": int(re.search(r"^total +(\d+)", text, flags=re.MULTILINE)[1]),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "wall_seconds": round(wall, 2),
        "peak_memory_mb": round(usage.ru_maxrss / 1024, 1),  # Linux counts KiB
        "snakemake": version("snakemake"),
        "python": platform.python_version(),
    }


def schedule(folder: Path, jobs: int) -> dict[str, float]:
    """Run Snakemake until so many jobs are over; return its own processor time for each."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2"]
    command += ["--configfile", "config/demo.yaml", "config/scaling.yaml"]
    log = folder / "snakemake.log"
    before = None
    with log.open("w") as stream:
        run = psutil.Popen(command, cwd=folder, stdout=stream, stderr=stream)
        while True:
            if run.poll() is not None:
                raise SystemExit(f"snakemake failed:\n{log.read_text()[-2000:]}")
            text = log.read_text()
            over = re.findall(r"^(\d+) of (\d+) steps", text, flags=re.MULTILINE)
            now = sum(run.cpu_times()[:2])  # without its children's
            if over and before is None:
                before = int(over[-1][0]), now
            if before and int(over[-1][0]) >= before[0] + jobs:
                break
            time.sleep(0.1)
        memory = run.memory_info().rss
        for process in [run, *run.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        run.wait()
    return {
        "jobs": int(over[-1][1]),
        "cpu_seconds": round((now - before[1]) / (int(over[-1][0]) - before[0]), 3),
        "peak_memory_mb": round(memory / 2**20, 1),
        "snakemake": version("snakemake"),
        "python": platform.python_version(),
    }


def measure(sizes: list[int], runs: int) -> list[dict[str, float]]:
    """Return one row per size and run, measured in a copy of the repository."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("workflow", "src", "profiles", "config", "envs"):
            shutil.copytree(ROOT / name, folder / name)
        for name in ("Snakefile", "config.yaml"):
            shutil.copy(ROOT / name, folder)
        for cells in sizes:
            config = configuration(*SIZES[cells])
            (folder / "config/scaling.yaml").write_text(yaml.safe_dump(config))
            for run, (plan, targets) in itertools.product(range(runs), PLANS.items()):
                rows.append({"cells": cells, "plan": plan, "run": run, **dry_run(folder, targets)})
                print(rows[-1], flush=True)
            rows.append({"cells": cells, "plan": RUN, "run": 0, **schedule(folder, jobs=10)})
            print(rows[-1], flush=True)
            for left in ("results", ".snakemake"):
                shutil.rmtree(folder / left)
    return rows


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw seconds and memory against cells, every run a point, lines through the medians."""
    import matplotlib.pyplot as plt

    plt.style.use(ROOT / "src/input_hessian/experiment/style.mplstyle")
    figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for ax, column, label in (
        (axes[0], "cpu_seconds", "processor time, seconds"),
        (axes[1], "peak_memory_mb", "peak memory, MB"),
    ):
        for color, marker, (plan, rows) in zip(
            ("C0", "C1"),
            "os",
            table[table["plan"] != RUN].groupby("plan", sort=False),
            strict=True,
        ):
            medians = rows.groupby("cells")[column].median()
            style = {"color": color, "marker": marker, "markersize": 4}
            ax.plot(medians.index, medians, label=plan, **style)
            ax.plot(rows["cells"], rows[column], linestyle="none", **style)
        ax.set(xlabel="cells", ylabel=label, xlim=(0, None), ylim=(0, None))
        ticks = [0, 500, 5000]
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes[0].legend(title="planned")
    figure.savefig(path)


def markdown(table: pd.DataFrame) -> str:
    """Return medians with least and most."""
    rows = []
    for (cells, plan), group in table.groupby(["cells", "plan"], sort=False):
        seconds, memory = group["cpu_seconds"], group["peak_memory_mb"]
        rows.append(
            {
                "cells": f"{cells:,}",
                "planned": plan,
                "jobs": f"{group['jobs'].iloc[0]:,}",
                "processor time": f"{seconds.median():.2g} s"
                + (f" ({seconds.min():.2g}-{seconds.max():.2g})" if len(seconds) > 1 else ""),
                "peak memory": f"{memory.median():.0f} MB",
            }
        )
    measured = (
        f"Median (least-most) of n = {table['run'].nunique()} runs, Snakemake "
        f"{table['snakemake'].iloc[0]}, Python {table['python'].iloc[0]}."
    )
    return f"{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n\n{measured}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="+", choices=SIZES, default=list(SIZES))
    parser.add_argument("--runs", type=int, default=3, help="of every size")
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--redraw", action="store_true", help="draw the figure from the CSV alone")
    args = parser.parse_args()

    path = args.output / "dag_scaling.csv"
    if not args.redraw:
        table = pd.DataFrame(measure(args.cells, args.runs), columns=COLUMNS)
        write_atomically(path, table.to_csv(index=False))
    table = pd.read_csv(path)
    draw(table, path.with_suffix(".png"))
    text = markdown(table)
    print(text)
    if args.output.resolve() == (HERE / "results").resolve():
        write_table("dag_scaling.py", text)


if __name__ == "__main__":
    main()
