# Configuration, cells, and which library modules each script depends on.

import json
import re
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.current_basedir).parent))

from validation import ConfigError, validate

try:
    validate(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# The scripts import the library of this checkout, also where it is not installed (--sdm conda).
shell.prefix("set -euo pipefail; export PYTHONPATH=src PYTHONUNBUFFERED=1; ")

RESULTS = f"results/{config['name']}"
REPORT = f"reports/{config['name']}"
LOGS = f"logs/{config['name']}"
CELL = "{dataset}/{regularizer}/lam~{lam}/seed~{seed}"

DATASETS = {entry["name"]: entry for entry in config["datasets"]}
REGULARIZERS = {entry["name"]: entry for entry in config["regularizers"]}
RECOVERY = config["recovery"]
# One job at a time per GPU: profiles/default has one. With `auto`, Snakemake cannot know.
GPU = 1 if config["device"] == "cuda" else 0

# One canonical text per weight: it names the files and is converted back in one place, below.
LAM = {
    name: {f"{lam:g}": float(lam) for lam in entry["lam"]}
    for name, entry in REGULARIZERS.items()
}


def alternatives(texts):
    """Regular expression for exactly these texts."""
    return "|".join(sorted({re.escape(str(text)) for text in texts}))


wildcard_constraints:
    dataset=alternatives(DATASETS),
    regularizer=alternatives(REGULARIZERS),
    lam=alternatives(text for texts in LAM.values() for text in texts),
    seed=alternatives(config["seeds"]),


# What each script imports from src/input_hessian (a test compares this with what really happens).
# Files, not the package: editing a figure never retrains, editing the core always does.
MODULES = {
    "prepare_dataset": ["datasets", "errors", "files"],
    "train": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "provenance",
        "regularizers",
        "training",
    ],
    "attack": [
        "attacks",
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "provenance",
        "regularizers",
        "training",
    ],
    "collect": ["errors", "files", "results"],
    "summarize": ["errors", "files", "results"],
    "plot_robustness": ["results"],
    "plot_pareto": ["results"],
    "plot_cost": ["results"],
    "plot_learning_curves": ["results"],
    "measure_recovery": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "regularizers",
        "training",
    ],
    "measure_cost": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "regularizers",
        "training",
    ],
    "plot_recovery": ["results"],
    "plot_examples": ["datasets", "errors", "files"],
}


def modules(script):
    """Library files that a script depends on."""
    names = ["__init__", *MODULES[script]]
    return [f"src/input_hessian/{name}.py" for name in names]


def cells(pattern, dataset=None):
    """Paths of a pattern for every cell of the configuration, or of one dataset."""
    return [
        pattern.format(dataset=name, regularizer=regularizer, lam=lam, seed=seed)
        for name in ([dataset] if dataset else DATASETS)
        for regularizer in REGULARIZERS
        for lam in LAM[regularizer]
        for seed in config["seeds"]
    ]


def cell(wildcards, seed=None):
    """Identity of a cell, its weight and seed as numbers."""
    return {
        "dataset": wildcards.dataset,
        "regularizer": wildcards.regularizer,
        "lam": LAM[wildcards.regularizer][wildcards.lam],
        "seed": int(wildcards.seed if seed is None else seed),
    }


def cell_settings(wildcards, seed=None):
    """Everything that a cell's training depends on, as JSON."""
    identity = cell(wildcards, seed)
    entry = REGULARIZERS[wildcards.regularizer] | {"lam": identity["lam"]}
    return json.dumps(
        {
            "cell": identity,
            "model": config["model"],
            "regularizer": {key: entry[key] for key in entry if key != "name"},
            "training": config["training"],
        },
        sort_keys=True,
    )


def attack_settings(wildcards):
    """Everything that a cell's evaluation depends on beside the trained network, as JSON."""
    epsilons = DATASETS[wildcards.dataset]["epsilons"]
    return json.dumps(
        {"cell": cell(wildcards), "epsilons": epsilons} | config["evaluation"],
        sort_keys=True,
    )


def cost_settings(wildcards):
    """What the steps that are timed depend on: every regularizer, at its first weight."""
    return json.dumps(
        {
            "model": config["model"],
            "batch_size": config["training"]["batch_size"],
            "regularizers": {
                name: {key: entry[key] for key in entry if key != "name"}
                | {"lam": float(entry["lam"][0])}
                for name, entry in REGULARIZERS.items()
            },
        }
    )


def grid_settings(wildcards):
    """The cells to collect, as JSON; thousands of paths would not fit into a command line."""
    return json.dumps(
        {
            "results": RESULTS,
            "datasets": list(DATASETS),
            "regularizers": {name: list(lams) for name, lams in LAM.items()},
            "seeds": config["seeds"],
        }
    )


def headline_settings(wildcards):
    """The radii of the summary table and of the Pareto figure, per dataset and norm, as JSON."""
    return json.dumps({name: entry["headline"] for name, entry in DATASETS.items()})


def shown_cells(wildcards):
    """One cell per regularizer for the panel of examples: the middle weight, the first seed."""
    pattern = f"{RESULTS}/{CELL}/examples.safetensors"
    return [
        pattern.format(
            dataset=wildcards.dataset,
            regularizer=name,
            lam=list(lams)[len(lams) // 2],
            seed=config["seeds"][0],
        )
        for name, lams in LAM.items()
    ]


def recovery_cells(wildcards):
    """The measurements of one dataset, one per weight."""
    return [
        f"{RESULTS}/recovery/{wildcards.dataset}/{RECOVERY['regularizer']}/lam~{lam:g}.csv"
        for lam in RECOVERY["lam"]
    ]
