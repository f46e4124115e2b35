"""Whether a folder of released results is what its provenance.json says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from input_hessian.experiment.tables import CELL, read_table


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def config_sha256(config: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a configuration, whatever the order of its keys."""
    return sha256(json.dumps(config, sort_keys=True, separators=(",", ":")).encode())


def grid_cells(config: Mapping[str, Any]) -> set[tuple[str, str, float, int]]:
    """Return dataset, regularizer, lam and seed of every cell of a recorded configuration."""
    trained = {
        (dataset, name, float(lam), seed)
        for dataset in config["datasets"]
        for name, entry in config["regularizers"].items()
        for lam in (
            entry["lam"].get(dataset, []) if isinstance(entry["lam"], dict) else entry["lam"]
        )
        for seed in config["seeds"]
    }
    networks = config.get("networks", {}).items()
    return trained | {(entry["dataset"], name, 0.0, config["seeds"][0]) for name, entry in networks}


def problems(folder: Path) -> list[str]:
    """Return what in a folder of results does not fit its provenance.json, one line each."""
    found = []
    record = json.loads((folder / "provenance.json").read_text())
    config = record["config"]
    if config_sha256(config) != record["config_sha256"]:
        found.append("provenance.json: the hash is not that of the recorded configuration")
    tables = {path.name: sha256(path.read_bytes()) for path in (folder / "tables").glob("[!.]*")}
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
