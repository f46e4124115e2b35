# Configuration, cells, and which library modules each script depends on.

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace

from snakemake.exceptions import WorkflowError

sys.path.insert(0, str(Path(workflow.current_basedir).parent))

from validation import ConfigError, validate

try:
    validate(config)
except ConfigError as error:
    raise WorkflowError(str(error)) from None

# The scripts import the library of this checkout, also where it is not installed (--sdm conda).
# The allocator keeps its memory: by default, glibc gives every large tensor back to the kernel and has
# it mapped and zeroed again at the next step, a third of a step's time on a CPU.
shell.prefix(
    "set -euo pipefail; export PYTHONPATH=src PYTHONUNBUFFERED=1 "
    "MALLOC_MMAP_THRESHOLD_=4294967296 MALLOC_TRIM_THRESHOLD_=4294967296; "
)

RESULTS = f"results/{config['name']}"
REPORT = f"reports/{config['name']}"
LOGS = f"logs/{config['name']}"
CELL = "{dataset}/{regularizer}/lam~{lam}/seed~{seed}"
SELECTED = "{dataset}/{regularizer}/selected/seed~{seed}"
# The same in the messages of jobs.
CELL_TEXT = "{wildcards.dataset}, {wildcards.regularizer}, lam {wildcards.lam}, seed {wildcards.seed}"

DATASETS = {entry["name"]: entry for entry in config["datasets"]}
REGULARIZERS = {entry["name"]: entry for entry in config["regularizers"]}
EVALUATION = config["evaluation"]
SELECTION = config["selection"]
RECOVERY = config["recovery"]
CERTIFICATE = config["certificate"]
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
        "batched_training",
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "provenance",
        "regularizers",
        "stacking",
        "taylor",
        "training",
    ],
    "attack": [
        "attacks",
        "curvature",
        "datasets",
        "errors",
        "evaluation",
        "files",
        "input_gradient",
        "models",
        "provenance",
        "regularizers",
        "tables",
        "taylor",
        "training",
    ],
    "attack_selected": [
        "attacks",
        "curvature",
        "datasets",
        "errors",
        "evaluation",
        "files",
        "input_gradient",
        "models",
        "provenance",
        "regularizers",
        "tables",
        "taylor",
        "training",
    ],
    "validate": [
        "attacks",
        "curvature",
        "datasets",
        "errors",
        "files",
        "input_gradient",
        "models",
        "regularizers",
        "taylor",
        "training",
    ],
    "select_lam": ["errors", "files", "results", "tables"],
    "tabulate_attacks": ["errors", "files", "statistics", "tables"],
    "check_masking": [
        "attacks",
        "curvature",
        "datasets",
        "errors",
        "files",
        "input_gradient",
        "masking",
        "models",
        "regularizers",
        "tables",
        "taylor",
        "training",
    ],
    "mask_gradients": ["errors", "files", "models"],
    "collect_masking": ["errors", "files", "tables"],
    "plot_masking": ["tables"],
    "collect": ["errors", "files", "results", "tables"],
    "summarize": ["errors", "files", "statistics", "tables"],
    "judge_claims": ["errors", "files", "statistics", "tables"],
    "compare": ["errors", "files", "results", "statistics", "tables"],
    "plot_headline": ["errors", "statistics", "tables"],
    "plot_autoattack": ["tables"],
    "plot_loss_surface": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "regularizers",
        "surface",
        "taylor",
        "training",
    ],
    "plot_robustness": ["errors", "published", "statistics", "tables"],
    "plot_pareto": ["errors", "statistics", "tables"],
    "plot_tradeoff": ["errors", "statistics", "tables"],
    "plot_cost": ["tables"],
    "plot_learning_curves": ["tables"],
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
    "plot_recovery": ["tables"],
    "measure_curvature": [
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "radius",
        "regularizers",
        "tables",
        "taylor",
        "training",
    ],
    "collect_curvature": ["errors", "files", "results", "tables"],
    "plot_curvature": ["tables"],
    "plot_radius": ["results", "tables"],
    "certify": [
        "certificate",
        "curvature",
        "datasets",
        "errors",
        "files",
        "models",
        "radius",
        "regularizers",
        "tables",
        "taylor",
        "training",
    ],
    "plot_certificate": ["tables"],
    "plot_examples": ["datasets", "errors", "files"],
    "run_notebook": ["errors", "files"],
    "write_provenance": ["datasets", "errors", "files", "provenance", "tables"],
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


def selected_cells(pattern):
    """Paths of a pattern for every dataset, regularizer and seed."""
    return [
        pattern.format(dataset=dataset, regularizer=name, seed=seed)
        for dataset in DATASETS
        for name in trained(dataset)
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
    # Which cells it is trained with changes it by rounding alone.
    training = {k: v for k, v in config["training"].items() if k != "batch_cells"}
    return json.dumps(
        {
            "cell": identity,
            "model": config["model"],
            "regularizer": penalty(wildcards.regularizer, identity["lam"]),
            "training": training,
        },
        sort_keys=True,
    )


def training_settings(wildcards):
    """The same as a list of one cell."""
    return f"[{cell_settings(wildcards)}]"


class Batch:
    """Cells of one dataset and regularizer that one job trains together."""

    def __init__(self, name, dataset, regularizer, cells):
        self.name, self.dataset = name, dataset
        self.cells = [
            SimpleNamespace(
                dataset=dataset, regularizer=regularizer, lam=lam, seed=str(seed)
            )
            for lam, seed in cells
        ]
        listed = ", ".join(f"lam {lam} seed {seed}" for lam, seed in cells)
        self.text = f"{dataset}, {regularizer}, {listed}"

    def paths(self, filename):
        """This file of every cell."""
        pattern = f"{RESULTS}/{CELL}/{filename}"
        return [pattern.format(**vars(cell)) for cell in self.cells]

    def settings(self, wildcards):
        """What their training depends on, as JSON."""
        return f"[{', '.join(map(cell_settings, self.cells))}]"


def batches(size):
    """All cells in batches of so many; what is left alone is trained as without batches."""
    found = []
    for dataset in DATASETS:
        for name in trained(dataset):
            cells = [(lam, seed) for lam in LAM[name] for seed in config["seeds"]]
            for start in range(0, len(cells), size):
                if len(cells[start : start + size]) > 1:
                    batch = cells[start : start + size]
                    found.append(
                        Batch(f"train_together_{len(found) + 1}", dataset, name, batch)
                    )
    return found


def evaluation_settings(dataset, attacks, radii):
    """What an evaluation depends on beside the trained network."""
    return {
        "images": EVALUATION["images"],
        "epsilons": DATASETS[dataset][radii],
        "attacks": attacks,
    }


def attack_settings(wildcards):
    """Everything that a cell's evaluation depends on beside the trained network, as JSON."""
    settings = evaluation_settings(wildcards.dataset, EVALUATION["attacks"], "epsilons")
    return json.dumps({"cell": cell(wildcards)} | settings, sort_keys=True)


def lam_siblings(pattern):
    """Function of wildcards: paths of a pattern for every weight of a regularizer, at one seed."""

    def paths(wildcards):
        return [
            pattern.format(**(dict(wildcards.items()) | {"lam": lam}))
            for lam in LAM[wildcards.regularizer]
        ]

    return paths


def selected_settings(wildcards):
    """The same for the attacks on selected cells; which of them that is decided by the run."""
    attacks = EVALUATION["selected_attacks"]
    settings = evaluation_settings(wildcards.dataset, attacks, "headline")
    cells = [
        {
            "dataset": wildcards.dataset,
            "regularizer": wildcards.regularizer,
            "lam": lam,
            "seed": int(wildcards.seed),
        }
        for lam in LAM[wildcards.regularizer].values()
    ]
    return json.dumps({"cells": cells} | settings, sort_keys=True)


def validation_settings(wildcards):
    """What the attack on validation images depends on, as JSON."""
    settings = {
        "cell": cell(wildcards),
        "images": SELECTION["images"],
        "steps": SELECTION["steps"],
        "headline": DATASETS[wildcards.dataset]["headline"],
    }
    return json.dumps(settings, sort_keys=True)


def masking_checks(dataset):
    """What the masking checks depend on beside the network and the attacks on it."""
    return {
        "images": EVALUATION["masking_images"],
        "headline": DATASETS[dataset]["headline"],
        "attacks": EVALUATION["attacks"],
    }


def masking_settings(wildcards):
    """The same for one cell, as JSON."""
    settings = {"cell": cell(wildcards)} | masking_checks(wildcards.dataset)
    return json.dumps(settings, sort_keys=True)


def control(dataset):
    """Identity of the masked control, as of a cell."""
    return {
        "dataset": dataset,
        "regularizer": "control",
        "lam": 0.0,
        "seed": config["seeds"][0],
    }


def control_attack_settings(wildcards):
    """As attack_settings, for the masked control, at the radii that the checks look at."""
    settings = evaluation_settings(wildcards.dataset, EVALUATION["attacks"], "headline")
    return json.dumps({"cell": control(wildcards.dataset)} | settings, sort_keys=True)


def control_masking_settings(wildcards):
    """As masking_settings, for the masked control."""
    settings = {"cell": control(wildcards.dataset)} | masking_checks(wildcards.dataset)
    return json.dumps(settings, sort_keys=True)


def plain_model(wildcards):
    """The network of plain training at the first seed."""
    seed = config["seeds"][0]
    return f"{RESULTS}/{wildcards.dataset}/none/lam~0/seed~{seed}/model.safetensors"


def cost_settings(wildcards):
    """What the steps that are timed depend on: every regularizer, at its first weight."""
    return json.dumps(
        {
            "model": dict(sorted(config["model"].items())),
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


def result_settings(wildcards):
    """The configuration without what changes no result, as JSON."""
    unchanging = ("mirror", "device")
    kept = {key: value for key, value in config.items() if key not in unchanging}
    return json.dumps(kept, sort_keys=True)


def headline_settings(wildcards):
    """The radii of the summary table and of the Pareto figure, per dataset and norm, as JSON."""
    return json.dumps({name: entry["headline"] for name, entry in DATASETS.items()})


def comparison_settings(wildcards):
    """Where the cells are, at which radii they are compared, and with what, as JSON."""
    headline = {name: entry["headline"] for name, entry in DATASETS.items()}
    return json.dumps({"results": RESULTS, "headline": headline} | config["comparison"])


def penalty_settings(wildcards):
    """The penalty of every regularizer, as JSON."""
    return json.dumps({name: entry["penalty"] for name, entry in REGULARIZERS.items()})


def shown_cells(filename):
    """Input function: this file of one cell per regularizer, the middle weight, the first seed."""

    def paths(wildcards):
        return [
            f"{RESULTS}/{CELL}/{filename}".format(
                dataset=wildcards.dataset,
                regularizer=name,
                lam=list(LAM[name])[len(LAM[name]) // 2],
                seed=config["seeds"][0],
            )
            for name in trained(wildcards.dataset)
        ]

    return paths


def recovery_cells(wildcards):
    """The measurements of one dataset, one per weight."""
    return [
        f"{RESULTS}/recovery/{wildcards.dataset}/{RECOVERY['regularizer']}/lam~{lam:g}.csv"
        for lam in RECOVERY["lam"]
    ]


def image_settings(wildcards):
    """A cell and how many test images are looked at, as JSON."""
    return json.dumps(
        {"cell": cell(wildcards), "images": config["evaluation"]["images"]}
    )


def certifiable_settings(wildcards):
    """As training_settings, with the network that has a certificate."""
    settings = json.loads(cell_settings(wildcards))
    return json.dumps([settings | {"model": CERTIFICATE["model"]}], sort_keys=True)


def certifiable_attack_settings(wildcards):
    """What attacks that network: of the configured attacks, the one for the smallest l2."""
    settings = json.loads(attack_settings(wildcards))
    smallest = [attack for attack in settings["attacks"] if attack["attack"] == "ddn"]
    return json.dumps(settings | {"attacks": smallest}, sort_keys=True)


def certificates(wildcards):
    """The certified networks of one dataset, one per regularizer."""
    return [
        f"{RESULTS}/certificate/{CELL}/certificate.parquet".format(
            dataset=wildcards.dataset,
            regularizer=entry["name"],
            lam=f"{entry['lam']:g}",
            seed=config["seeds"][0],
        )
        for entry in CERTIFICATE["regularizers"]
    ]


def shown_everywhere(filename):
    """This file of one cell per dataset and regularizer, see `shown_cells`."""
    paths = shown_cells(filename)
    return [
        path for dataset in DATASETS for path in paths(SimpleNamespace(dataset=dataset))
    ]


BATCHES = batches(config["training"].get("batch_cells", 1))
# Redrawn when a script, the shared style or the data change.
STYLE = ["workflow/scripts/plotting.py", "workflow/scripts/style.mplstyle"]
