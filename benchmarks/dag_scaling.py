"""Measure what planning costs Snakemake, against the number of cells: dry runs of generated configs.

Time is that of the processor, with the wall clock beside it: a busy machine changes the one little.
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent
# Cells: one without penalty and so many weights of the Hessian penalty, times so many seeds.
SIZES = {50: (9, 5), 500: (24, 20), 5000: (99, 50)}
COLUMNS = ["cells", "jobs", "run", "cpu_seconds", "wall_seconds", "peak_memory_mb"]


def configuration(lams: int, seeds: int) -> dict:
    """Return the demo's configuration with so many weights of the Hessian penalty and seeds."""
    config = yaml.safe_load((ROOT / "config/demo.yaml").read_text())
    entries = {entry["name"]: entry for entry in config["regularizers"]}
    entries["hessian"]["lam"] = [round(0.1 * (i + 1), 1) for i in range(lams)]
    return config | {
        "name": "scaling",
        "seeds": list(range(seeds)),
        "regularizers": [entries["none"], entries["hessian"]],
        "recovery": config["recovery"] | {"lam": [0.1]},
        "certificate": config["certificate"] | {"regularizers": [{"name": "none", "lam": 0}]},
    }


def dry_run(folder: Path) -> dict[str, float]:
    """Run ``snakemake -n`` in ``folder``; return jobs, seconds and peak memory of its process."""
    command = [sys.executable, "-m", "snakemake", "-n", "--configfile", "config/scaling.yaml"]
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
    }


def measure(sizes: list[int], runs: int) -> list[dict[str, float]]:
    """Return one row per size and run, measured in a copy of the repository."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in ("workflow", "src", "profiles", "config"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "Snakefile", folder)
        for cells in sizes:
            config = folder / "config/scaling.yaml"
            config.write_text(yaml.safe_dump(configuration(*SIZES[cells])))
            for run in range(runs):
                rows.append({"cells": cells, "run": run, **dry_run(folder)})
                print(rows[-1], flush=True)
    return rows


def draw(rows: list[dict[str, str]], path: Path) -> None:
    """Draw seconds and memory against cells, every run a point, lines through the medians."""
    import matplotlib.pyplot as plt
    import pandas as pd

    plt.style.use(ROOT / "workflow/scripts/style.mplstyle")
    table = pd.DataFrame(rows).astype(float)
    figure, axes = plt.subplots(1, 2, figsize=(7, 3), layout="constrained")
    for ax, column, label in (
        (axes[0], "cpu_seconds", "processor time, seconds"),
        (axes[1], "peak_memory_mb", "peak memory, MB"),
    ):
        medians = table.groupby("cells")[column].median()
        ax.plot(medians.index, medians, color="C0")
        ax.plot(table["cells"], table[column], "o", color="C0", markersize=4)
        ax.set(xlabel="cells", ylabel=label, xlim=(0, None), ylim=(0, None))
        ticks = [0, 500, 5000]
        ax.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    figure.savefig(path)


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
        rows = measure(args.cells, args.runs)
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    with path.open(newline="") as file:
        draw(list(csv.DictReader(file)), path.with_suffix(".png"))


if __name__ == "__main__":
    main()
