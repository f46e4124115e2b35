"""Write down where the tables come from: code, configuration, data, versions, machine, time."""

import json
import os
import platform
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pandas as pd
import torch

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.provenance import environment
from input_hessian.experiment.readers import read_json
from input_hessian.experiment.release import config_sha256, sha256
from input_hessian.experiment.tables import read_table

PACKAGES = [
    *("foolbox", "matplotlib", "numpy", "pandas", "pyarrow", "pyautoattack", "safetensors"),
    *("scikit-learn", "scipy", "seaborn", "snakemake", "torch", "torchvision"),
]
# What a cell's record says about how it was computed; cells that agree in all of it are counted.
RECORDED = ["commit", "python", "torch", "numpy", "device", "processor", "arithmetic", "threads"]


def count_records(records: list[dict]) -> list[dict]:
    """Return every combination of ``RECORDED`` with its number of cells, the most frequent first."""
    counts = Counter(tuple(record[key] for key in RECORDED) for record in records)
    return [
        dict(zip(RECORDED, values, strict=True)) | {"cells": count}
        for values, count in counts.most_common()
    ]


def describe_seconds(seconds: list[float], expected: int | None = None) -> dict:
    """Return number, sum and median of durations."""
    series = pd.Series(seconds, dtype=float)
    described = {"n": len(series)}
    if expected is not None:
        described["jobs"] = expected
    if len(series):
        described |= {"sum": round(series.sum(), 1), "median": round(series.median(), 1)}
    return described


def wall_times(files: dict[str, list[Path]]) -> dict[str, dict]:
    """Return the wall time in seconds of the jobs of each rule, from Snakemake's benchmarks."""
    return {
        rule: describe_seconds(
            [pd.read_csv(path, sep="\t")["s"].sum() for path in paths if path.exists()],
            len(paths),
        )
        for rule, paths in files.items()
        if paths
    }


def installed(package: str) -> str:
    """Return the version of a package, or that it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def table(rows: list[dict]) -> str:
    """Return rows as a Markdown table, numbers as they are."""
    return (
        pd.DataFrame(rows, dtype=object).fillna("").to_markdown(index=False, disable_numparse=True)
    )


def to_markdown(record: dict) -> str:
    """Return the record for readers."""
    status, written = record["cells"], record["written_by"]
    data = [
        {"file": entry["file"], "sha256": f"`{entry['sha256']}`"}
        for entry in record["data"].values()
    ]
    official = [
        {"dataset": name, "official file": file, "MD5": f"`{md5}`"}
        for name, entry in record["data"].items()
        for file, md5 in entry["official_md5"].items()
    ]
    times = [{"rule": rule} | values for rule, values in record["wall_seconds"].items()]
    blocks = [
        f"# Provenance of `{record['name']}`",
        f"{sum(status.values())} cells (dataset, regularizer, λ, seed) of which "
        f"{status.get('finished', 0)} finished and {status.get('diverged', 0)} diverged; seeds "
        f"{', '.join(map(str, record['seeds']))}. Tables and figures were made from their records at "
        f"commit `{written['commit']}`, {written['time'][:10]}, on {written['cores']} cores ({written['processor']}, "
        f"{written['system']}). `-dirty` behind a commit: files differed from it.",
        f"## Code and machine of the cells\n\nTrained by:\n\n{table(record['trained_by'])}\n\n"
        f"Attacked by:\n\n{table(record['attacked_by'])}\n\nA run that was resumed at another "
        "commit has several rows; `threads` is per job.",
        "## Configuration\n\nSHA-256 of its canonical JSON (keys sorted, no spaces; without `mirror` "
        f"and `device`, which change no result): `{record['config_sha256']}`. The whole of it is in "
        "`provenance.json`.",
        f"## Data\n\n{table(data)}",
    ]
    if official:
        blocks.append(table(official))
    blocks += [
        "## Time\n\nWall time of the jobs in seconds: `n` of `jobs` have a measurement. A job that "
        f"was resumed counts from its last start.\n\n{table(times)}\n\nSeconds of training alone, "
        f"also before a resumption:\n\n{table([record['training_seconds']])}",
        "## Versions\n\nOf the environment that made the tables:\n\n"
        + table([{"package": k, "version": v} for k, v in record["versions"].items()]),
        "## Tables\n\n"
        + table([{"table": k, "sha256": f"`{v}`"} for k, v in record["tables"].items()]),
    ]
    return "\n\n".join(blocks) + "\n"


def main(
    data: list[Input],
    tables: list[Input],
    stronger: list[Input],
    controls: list[Input],
    certificates: list[Input],
    recovery: list[Input],
    *,
    settings: Settings,
    record: Output,
    markdown: Output,
) -> None:
    grid, config = settings["grid"], settings["config"]
    folders = cell_folders(grid)
    # Of networks that were trained elsewhere, this says nothing.
    trained = [f for f in folders if f.parts[-3] not in grid.get("networks", [])]
    training = [read_json(folder / "training.json") for folder in trained]
    evaluation = [read_json(folder / "evaluation.json") for folder in folders]
    (path,) = (path for path in tables if path.name == "cells.csv")
    cells = read_table(path)
    here = environment(torch.device("cpu"), threads=1)
    benchmarks = {
        "train": [folder / "train.benchmark.tsv" for folder in trained],
        "evaluate": [folder / "evaluate.benchmark.tsv" for folder in folders],
        "run_stronger_attacks": [file.with_suffix(".benchmark.tsv") for file in stronger],
        "train_certifiable": [file.with_name("train.benchmark.tsv") for file in certificates],
        "certify": [file.with_name("certify.benchmark.tsv") for file in certificates],
        "evaluate_control": [file.with_name("evaluate.benchmark.tsv") for file in controls],
        "measure_recovery": [file.with_suffix(".benchmark.tsv") for file in recovery],
    }
    written = {
        "name": config["name"],
        "config": config,
        "config_sha256": config_sha256(config),
        "seeds": config["seeds"],
        "cells": cells["status"].value_counts().to_dict(),
        "trained_by": count_records(training),
        "attacked_by": count_records([cell["evaluated_with"] for cell in evaluation]),
        "written_by": {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "commit": here["commit"],
            "processor": here["processor"],
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": here["python"]} | {name: installed(name) for name in PACKAGES},
        "data": {
            path.stem: {
                "file": str(path),
                "sha256": sha256(path.read_bytes()),
                "official_md5": json.loads(path.with_suffix(".json").read_text())["md5"],
            }
            for path in data
        },
        "wall_seconds": wall_times(benchmarks),
        "training_seconds": describe_seconds(cells["train_seconds"].dropna()),
        "figures": settings["figures"],
        "tables": {path.name: sha256(path.read_bytes()) for path in tables},
    }
    write_atomically(record, json.dumps(written, indent=2) + "\n")
    write_atomically(markdown, to_markdown(written))


if __name__ == "__main__":
    run(main)
