"""Measure how many cells a minute are trained, against how many are trained together.

Random images of the datasets' sizes; in every round each number of cells takes a few steps of the
real training, in random order, so that other load on the machine hits all alike.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

import pandas as pd
import torch
import yaml
from readme import write_table

from input_hessian import models, regularizers
from input_hessian.batched_training import divide, train_together
from input_hessian.datasets import DATASETS
from input_hessian.errors import run
from input_hessian.files import write_atomically
from input_hessian.provenance import environment
from input_hessian.training import TrainingSettings, configure, train

HERE = Path(__file__).parent
ROOT = HERE.parent
# Configuration, and the dataset whose cells are trained.
SIZES = {"config/demo.yaml": "digits", "config.yaml": "mnist"}
REGULARIZERS = ("none", "gradient", "hessian", "adversarial-l2")
TOGETHER = (1, 2, 4, 8, 16)
# As the rules set it, in common.smk; read by the C library when a process starts.
ALLOCATOR = dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), "4294967296")
STEPS = 4  # of the epoch that is timed, after one as long to warm up


def seconds_per_step(config: dict, dataset: str, entry: dict, count: int, device) -> float:
    """Return the seconds that a step takes for each of ``count`` cells that train together."""
    shape, classes = DATASETS[dataset].image_shape, len(DATASETS[dataset].class_names)
    batch_size = config["training"]["batch_size"]
    images = torch.rand(STEPS * batch_size, *shape)
    labels = torch.randint(classes, (len(images),))
    held_out = images[:10], labels[:10]
    penalty = {key: value for key, value in entry.items() if key != "name"}
    penalties = [penalty | {"lam": float(entry["lam"][0])}] * count
    settings = [
        TrainingSettings(2, batch_size, config["training"]["learning_rate"], seed)
        for seed in range(count)
    ]

    def build_model():
        return models.build(**config["model"], image_shape=shape, classes=classes)

    data = (images, labels), held_out
    if count == 1:
        regularizer = regularizers.build(**penalties[0])
        results = [train(build_model, regularizer, *data, settings[0], device=device)]
    else:
        assert len(divide(penalties)) == 1
        results = train_together(build_model, penalties, *data, settings, device=device)
    return results[0][1].curve[-1]["seconds"] / STEPS


def measure(rounds: int, device: torch.device, threads: int) -> list[dict]:
    """Return one row per configuration, regularizer, number of cells and round."""
    rows = []
    where = environment(device, threads)
    for path, dataset in SIZES.items():
        config = yaml.safe_load((ROOT / path).read_text())
        training = config["training"]
        steps = training["epochs"] * -(-DATASETS[dataset].sizes["train"] // training["batch_size"])
        entries = {entry["name"]: entry for entry in config["regularizers"]}
        for name in REGULARIZERS:
            for i in range(rounds):
                for count in random.Random(i).sample(TOGETHER, len(TOGETHER)):
                    seconds = seconds_per_step(config, dataset, entries[name], count, device)
                    rows.append(
                        {
                            "config": path,
                            "dataset": dataset,
                            "regularizer": name,
                            "cells": count,
                            "round": i,
                            "milliseconds_per_step": round(1000 * seconds, 4),
                            "cells_per_minute": round(60 / (steps * seconds), 4),
                            **{
                                key: where[key]
                                for key in ("torch", "device", "processor", "threads")
                            },
                        }
                    )
            print(path, name, flush=True)
    return rows


def with_ratio(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with ``ratio``, cells per minute over those one by one in the same round."""
    keys = ["config", "regularizer", "round"]
    alone = table[table["cells"] == 1].set_index(keys)["cells_per_minute"].rename("alone")
    return table.assign(ratio=table["cells_per_minute"] / table.join(alone, on=keys)["alone"])


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw the ratio against the cells together: medians, bars from quartile to quartile."""
    import matplotlib.pyplot as plt

    plt.style.use(ROOT / "workflow/scripts/style.mplstyle")
    figure, axes = plt.subplots(1, 2, figsize=(7, 3.2), sharey=True, layout="constrained")
    for ax, (config, rows) in zip(axes, table.groupby("config", sort=False), strict=True):
        ax.axhline(1, color="0.6", linewidth=1)
        for i, name in enumerate(REGULARIZERS):
            groups = rows[rows["regularizer"] == name].groupby("cells")["ratio"]
            median, low, high = (groups.quantile(part) for part in (0.5, 0.25, 0.75))
            ax.errorbar(
                median.index * 2 ** (0.06 * (i - 1.5)),  # side by side
                median,
                yerr=[median - low, high - median],
                marker="osD^"[i],
                markersize=4,
                capsize=2,
                label=name,
            )
        ax.set_xscale("log", base=2)
        ax.set_xticks(TOGETHER, [str(count) for count in TOGETHER])
        ax.set_xlabel("cells trained together")
        ax.set_title(f"{rows['dataset'].iloc[0]}, {config}")
    axes[0].set_ylim(0, None)
    axes[0].set_ylabel("cells per minute,\nrelative to one by one")
    axes[1].legend(loc="upper right")
    figure.savefig(path)


def markdown(table: pd.DataFrame) -> str:
    """Return cells per minute, with the ratio: median, quartiles."""
    rows = []
    for (config, name), group in table.groupby(["config", "regularizer"], sort=False):
        row = {"configuration": config, "regularizer": name}
        for count, own in group.groupby("cells"):
            low, middle, high = own["ratio"].quantile([0.25, 0.5, 0.75])
            ratio = f" ({middle:.2f}; {low:.2f}-{high:.2f})" if count > 1 else ""
            column = f"{count} together" if count > 1 else "one by one"
            row[column] = f"{own['cells_per_minute'].median():.3g}{ratio}"
        rows.append(row)
    first = table.iloc[0]
    measured = (
        f"Cells per minute (ratio to one by one: median; quartiles of n = {table['round'].nunique()} "
        f"rounds). PyTorch {first['torch']}, {first['device']} ({first['processor']}), "
        f"{first['threads']} thread(s)."
    )
    return f"{pd.DataFrame(rows).to_markdown(index=False, disable_numparse=True)}\n\n{measured}"


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output", type=Path, default=HERE / "results")
    parser.add_argument("--redraw", action="store_true", help="draw the figure from the CSV alone")
    args = parser.parse_args()

    path = args.output / "batched_cells.csv"
    if not args.redraw and not ALLOCATOR.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
    if not args.redraw:
        rows = measure(args.rounds, configure(args.device, args.threads), args.threads)
        write_atomically(path, pd.DataFrame(rows).to_csv(index=False))
    table = with_ratio(pd.read_csv(path))
    draw(table, path.with_suffix(".png"))
    text = markdown(table)
    print(text)
    if args.output.resolve() == (HERE / "results").resolve():
        write_table("batched_cells.py", text)


if __name__ == "__main__":
    run(main)
