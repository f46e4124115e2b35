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
        "taylor",
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
        "taylor",
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
        "taylor",
        "training",
    ],
    "measure_cost": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "regularizers",
        "taylor",
        "training",
    ],
    "plot_recovery": ["results"],
    "plot_examples": ["datasets", "errors", "files"],
}


def modules(script):
    """Library files that a script depends on."""
    names = ["__init__", *MODULES[script]]
    return [f"src/input_hessian/{name}.py" for name in names]


def growing(amount):
    """A resource of which every further attempt of a job gets as much again (see `retries`)."""
    return lambda wildcards, attempt: amount * attempt


def trained(dataset):
    """Names of the regularizers that are trained on a dataset: all that do not name others."""
    return [
        name
        for name, entry in REGULARIZERS.items()
        if dataset in entry.get("datasets", DATASETS)
    ]


def cells(pattern):
    """Paths of a pattern for every cell of the configuration."""
    return [
        pattern.format(dataset=dataset, regularizer=name, lam=lam, seed=seed)
        for dataset in DATASETS
        for name in trained(dataset)
        for lam in LAM[name]
        for seed in config["seeds"]
    ]


def penalty(name, lam):
    """Keywords of a regularizer of the library: its entry, without what only names cells."""
    entry = REGULARIZERS[name] | {"lam": float(lam)}
    return {key: entry[key] for key in entry if key not in ("name", "datasets")}


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
    return json.dumps(
        {
            "cell": identity,
            "model": config["model"],
            "regularizer": penalty(wildcards.regularizer, identity["lam"]),
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
                name: penalty(name, REGULARIZERS[name]["lam"][0])
                for name in trained(wildcards.dataset)
            },
        }
    )


def grid_settings(wildcards):
    """The cells to collect, as JSON; thousands of paths would not fit into a command line."""
    return json.dumps(
        {
            "results": RESULTS,
            "datasets": {
                dataset: {name: list(LAM[name]) for name in trained(dataset)}
                for dataset in DATASETS
            },
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
            lam=list(LAM[name])[len(LAM[name]) // 2],
            seed=config["seeds"][0],
        )
        for name in trained(wildcards.dataset)
    ]


def recovery_cells(wildcards):
    """The measurements of one dataset, one per weight."""
    return [
        f"{RESULTS}/recovery/{wildcards.dataset}/{RECOVERY['regularizer']}/lam~{lam:g}.csv"
        for lam in RECOVERY["lam"]
    ]
