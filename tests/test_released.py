"""Released results are what their provenance.json says; and a provenance.json says what was."""

import hashlib
import json
import subprocess
from pathlib import Path

import pandas as pd
import pytest
import write_provenance
import yaml
from helpers.repository import ROOT
from snakemake.utils import update_config

from input_hessian.experiment.config import read_config
from input_hessian.experiment.release import grid_cells, problems, sha256
from input_hessian.experiment.tables import CELL


def test_released_results_are_whole_and_unchanged():
    command = ["git", "ls-files", "reports/*/provenance.json"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout: nothing says which results are released")
    folders = [(ROOT / path).parent for path in listed.stdout.splitlines()]
    if not folders:
        pytest.skip("no results are released yet: no reports/<name>/provenance.json is committed")
    assert {folder.name: problems(folder) for folder in folders} == {
        folder.name: [] for folder in folders
    }


@pytest.mark.parametrize("name", ["paper", "follow-up", "rivals"])
def test_a_released_run_is_that_of_its_configuration(name):
    record = json.loads((ROOT / f"reports/{name}/provenance.json").read_text())
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    if name != "paper":
        update_config(config, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text()))
    settings = read_config(config, check_plugins=False).result_settings()
    assert record["config"] == json.loads(json.dumps(settings))


CONFIG = {
    "name": "small",
    "seeds": [0, 1],
    "device": "cpu",
    "mirror": "/somewhere",
    "datasets": {"digits": {}, "mnist": {}},
    "regularizers": {"none": {"lam": [0]}, "hessian": {"lam": {"mnist": [0.1, 1]}}},
    "training": {"epochs": 2},
    "evaluation": {"images": 50},
}
LAMS = {"digits": {"none": ["0"]}, "mnist": {"none": ["0"], "hessian": ["0.1", "1"]}}
MACHINE = {
    "python": "3.12.1", "torch": "2.0", "numpy": "2.1", "device": "cpu", "processor": "abacus",
    "threads": 1, "arithmetic": "by hand",
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
    benchmark(Path("results/small/control/mnist/evaluate.benchmark.tsv"), 3)
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
        md5 = {} if path.stem == "digits" else {f"{i}.gz": str(i) for i in range(4)}
        path.with_suffix(".json").write_text(json.dumps({"md5": md5}))
    config = {key: value for key, value in CONFIG.items() if key not in ("mirror", "device")}
    grid = {"results": "results/small", "datasets": LAMS, "seeds": CONFIG["seeds"]}
    write_provenance.main(
        data,
        sorted(tables.iterdir()),
        stronger=[],
        controls=[Path(f"results/small/control/{name}/masking.json") for name in LAMS],
        certificates=[],
        recovery=[],
        settings={"config": config, "grid": grid, "figures": ["cost", "pareto"]},
        record=Path("reports/small/provenance.json"),
        markdown=Path("reports/small/provenance.md"),
    )
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
    assert record["wall_seconds"]["evaluate"] == {"n": 0, "jobs": 8}
    # of two controls, one was measured; nothing else was computed
    assert record["wall_seconds"]["evaluate_control"] == {"n": 1, "jobs": 2, "sum": 3, "median": 3}
    assert record["wall_seconds"].keys() == {"train", "evaluate", "evaluate_control"}
    assert record["training_seconds"] == {"n": 8, "sum": 16, "median": 2}
    assert record["data"]["digits"]["sha256"] == hashlib.sha256(b"digits").hexdigest()
    assert record["data"]["digits"]["official_md5"] == {}
    assert len(record["data"]["mnist"]["official_md5"]) == 4
    text = (released / "provenance.md").read_text()
    assert record["config_sha256"] in text
    assert record["tables"]["summary.md"] in text
    assert "7 finished and 1 diverged" in text


def test_untouched_results_have_no_problem(released):
    assert problems(released) == []


def edit(path, change):
    """Change a file's text."""
    before = path.read_text()
    path.write_text(change(before))
    assert path.read_text() != before


def forge(released, table, change):
    """Change a table and its checksum with it."""
    edit(released / f"tables/{table}", change)
    record = json.loads((released / "provenance.json").read_text())
    record["tables"][table] = sha256((released / f"tables/{table}").read_bytes())
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
    assert expected in problems(released)
