"""Released results are what their provenance.json says; and a provenance.json says what was."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import yaml
from test_tables import ROOT, script

from input_hessian.experiment.tables import CELL, read_table

provenance = script("write_provenance")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def config_sha256(config):
    kept = {key: value for key, value in config.items() if key not in ("mirror", "device")}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def grid_cells(config):
    """The cells of a configuration."""
    return {
        (dataset["name"], entry["name"], float(lam), seed)
        for dataset in config["datasets"]
        for entry in config["regularizers"]
        if dataset["name"] in entry.get("datasets", [dataset["name"]])
        for lam in entry["lam"]
        for seed in config["seeds"]
    }


def problems(folder, config):
    """What in a folder of released results does not fit its provenance.json and configuration."""
    found = []
    record = json.loads((folder / "provenance.json").read_text())
    if config_sha256(record["config"]) != record["config_sha256"]:
        found.append("provenance.json: the hash is not that of the recorded configuration")
    if config_sha256(config) != record["config_sha256"]:
        found.append("computed by another configuration than that of this name")
    tables = {path.name: sha256(path) for path in (folder / "tables").iterdir()}
    for name in sorted(tables.keys() | record["tables"].keys()):
        if tables.get(name) != record["tables"].get(name):
            found.append(f"tables/{name}: not the recorded file")
    for name in record["figures"]:
        for suffix in ("png", "pdf"):
            if not (folder / f"figures/{name}.{suffix}").is_file():
                found.append(f"figures/{name}.{suffix}: missing")
    if {"cells.csv", "robustness.csv"} <= tables.keys():
        cells = read_table(folder / "tables/cells.csv")
        listed = list(cells[CELL].itertuples(index=False, name=None))
        if len(listed) != len(set(listed)) or set(listed) != grid_cells(config):
            found.append("tables/cells.csv: not the cells of the configuration")
        if cells["status"].value_counts().to_dict() != record["cells"]:
            found.append("tables/cells.csv: other numbers of finished and diverged cells")
        images = config["evaluation"]["images"]
        if set(read_table(folder / "tables/robustness.csv")["n"]) != {images}:
            found.append(f"tables/robustness.csv: not every accuracy is one of {images} images")
    return found


def test_released_results_are_whole_and_unchanged():
    command = ["git", "ls-files", "reports/*/provenance.json"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which results are released")
    folders = [(ROOT / path).parent for path in listed.stdout.splitlines()]
    if not folders:
        pytest.skip("no results are released yet: no reports/<name>/provenance.json is committed")
    configs = [
        yaml.safe_load(path.read_text())
        for path in [ROOT / "config.yaml", *(ROOT / "config").glob("*.yaml")]
    ]
    configs = {config["name"]: config for config in configs}
    assert {folder.name: problems(folder, configs[folder.name]) for folder in folders} == {
        folder.name: [] for folder in folders
    }


CONFIG = {
    "name": "small",
    "seeds": [0, 1],
    "device": "cpu",
    "mirror": "/somewhere",
    "datasets": [{"name": "digits"}, {"name": "mnist"}],
    "regularizers": [
        {"name": "none", "lam": [0]},
        {"name": "hessian", "lam": [0.1, 1], "datasets": ["mnist"]},
    ],
    "training": {"epochs": 2},
    "evaluation": {"images": 50},
}
LAMS = {"digits": {"none": ["0"]}, "mnist": {"none": ["0"], "hessian": ["0.1", "1"]}}
MACHINE = {
    "python": "3.12.1", "torch": "2.0", "numpy": "2.1", "device": "cpu", "processor": "abacus",
    "threads": 1,
}  # fmt: skip


def benchmark(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"s\th:m:s\tmax_rss\n{seconds}\t0:00:01\t10\n")


@pytest.fixture
def released(tmp_path, monkeypatch):
    """A report folder of eight made-up cells, its provenance written by the script."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for dataset, regularizer, lam, seed in sorted(grid_cells(CONFIG)):
        cell = dict(zip(CELL, (dataset, regularizer, lam, seed), strict=True))
        folder = Path(f"results/small/{dataset}/{regularizer}/lam~{lam:g}/seed~{seed}")
        folder.mkdir(parents=True)
        # resumed at another commit, which trained the last three cells and attacked all
        commit = {"commit": "aaaaaaa" if len(rows) < 5 else "bbbbbbb"}
        (folder / "training.json").write_text(json.dumps(cell | commit | MACHINE))
        where = {"evaluated_with": {"commit": "bbbbbbb"} | MACHINE}
        (folder / "evaluation.json").write_text(json.dumps(cell | where))
        benchmark(folder / "train.benchmark.tsv", 10 * len(rows))
        status = "diverged" if lam == 1 and seed == 1 else "finished"
        rows.append(cell | {"status": status, "train_seconds": 2.0})
    benchmark(Path("results/small/mnist/none/lam~7/seed~0/train.benchmark.tsv"), 1e6)  # stale
    benchmark(Path("results/small/control/mnist/attack.benchmark.tsv"), 3)
    tables, figures = Path("reports/small/tables"), Path("reports/small/figures")
    tables.mkdir(parents=True)
    figures.mkdir()
    pd.DataFrame(rows).to_csv(tables / "cells.csv", index=False)
    pd.DataFrame({"n": [50, 50, 50]}).to_csv(tables / "robustness.csv", index=False)
    (tables / "summary.md").write_text("| a | b |\n")
    for name in ("cost.png", "cost.pdf", "pareto.png", "pareto.pdf"):
        (figures / name).write_bytes(b"drawn")
    data = [Path(f"data/{name}.safetensors") for name in LAMS]
    data[0].parent.mkdir()
    for path in data:
        path.write_bytes(path.stem.encode())
    config = {key: value for key, value in CONFIG.items() if key not in ("mirror", "device")}
    grid = {"results": "results/small", "datasets": LAMS, "seeds": CONFIG["seeds"]}
    command = ["write_provenance", "--config", json.dumps(config), "--grid", json.dumps(grid)]
    command += ["--figures", "cost", "pareto", "--data", *map(str, data), "--tables"]
    command += map(str, sorted(tables.iterdir()))
    command += ["--json", "reports/small/provenance.json"]
    command += ["--markdown", "reports/small/provenance.md"]
    monkeypatch.setattr(sys, "argv", command)
    provenance.main()
    return tmp_path / "reports/small"


def test_provenance_says_what_was(released):
    record = json.loads((released / "provenance.json").read_text())
    assert [(row["commit"], row["cells"]) for row in record["trained_by"]] == [
        ("aaaaaaa", 5),
        ("bbbbbbb", 3),
    ]
    assert record["attacked_by"] == [{"commit": "bbbbbbb"} | MACHINE | {"cells": 8}]
    assert record["cells"] == {"finished": 7, "diverged": 1}
    # 0, 10, ... 70; and not the cell that the grid does not hold
    assert record["wall_seconds"]["train"] == {"n": 8, "jobs": 8, "sum": 280, "median": 35}
    assert record["wall_seconds"]["attack"] == {"n": 0, "jobs": 8}
    assert record["wall_seconds"]["attack_control"]["sum"] == 3
    assert record["training_seconds"] == {"n": 8, "sum": 16, "median": 2}
    assert record["data"]["digits"]["sha256"] == hashlib.sha256(b"digits").hexdigest()
    assert record["data"]["digits"]["official_md5"] == {}
    assert len(record["data"]["mnist"]["official_md5"]) == 4
    text = (released / "provenance.md").read_text()
    assert record["config_sha256"] in text
    assert record["tables"]["summary.md"] in text
    assert "7 finished and 1 diverged" in text


def test_untouched_results_have_no_problem(released):
    assert problems(released, CONFIG) == []
    assert problems(released, CONFIG | {"device": "cuda", "mirror": "elsewhere"}) == []


def edit(path, change):
    """Change a file's text."""
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def forge(released, table, change):
    """Change a table and its checksum with it."""
    edit(released / f"tables/{table}", change)
    record = json.loads((released / "provenance.json").read_text())
    record["tables"][table] = sha256(released / f"tables/{table}")
    (released / "provenance.json").write_text(json.dumps(record))


def without_last_line(text):
    return "\n".join(text.splitlines()[:-1]) + "\n"


def last_line_twice(text):
    return text + text.splitlines()[-1] + "\n"


TAMPERINGS = {
    "an edited table": (
        lambda folder: edit(folder / "tables/summary.md", lambda s: s.replace("b", "c")),
        "tables/summary.md: not the recorded file",
    ),
    "a removed table": (
        lambda folder: (folder / "tables/robustness.csv").unlink(),
        "tables/robustness.csv: not the recorded file",
    ),
    "an added table": (
        lambda folder: (folder / "tables/extra.csv").write_text("a\n1\n"),
        "tables/extra.csv: not the recorded file",
    ),
    "a missing PNG": (
        lambda folder: (folder / "figures/cost.png").unlink(),
        "figures/cost.png: missing",
    ),
    "a missing PDF": (
        lambda folder: (folder / "figures/pareto.pdf").unlink(),
        "figures/pareto.pdf: missing",
    ),
    "an edited configuration": (
        lambda folder: edit(
            folder / "provenance.json", lambda s: s.replace('"epochs": 2', '"epochs": 3')
        ),
        "provenance.json: the hash is not that of the recorded configuration",
    ),
    "a cell left out": (
        lambda folder: forge(folder, "cells.csv", without_last_line),
        "tables/cells.csv: not the cells of the configuration",
    ),
    "a cell counted twice": (
        lambda folder: forge(folder, "cells.csv", last_line_twice),
        "tables/cells.csv: not the cells of the configuration",
    ),
    "a diverged cell made to have finished": (
        lambda folder: forge(folder, "cells.csv", lambda s: s.replace("diverged", "finished")),
        "tables/cells.csv: other numbers of finished and diverged cells",
    ),
    "fewer images": (
        lambda folder: forge(folder, "robustness.csv", lambda s: s.replace("50", "40", 1)),
        "tables/robustness.csv: not every accuracy is one of 50 images",
    ),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_tampering_is_found(released, tampering):
    change, expected = TAMPERINGS[tampering]
    change(released)
    assert expected in problems(released, CONFIG)


def test_results_of_another_configuration_are_found(released):
    assert problems(released, CONFIG | {"training": {"epochs": 3}}) == [
        "computed by another configuration than that of this name"
    ]
