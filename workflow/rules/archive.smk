# What leaves this machine. Each is asked for by its name.

# Every cell from which a network is chosen, and the networks.
CANDIDATES = [
    {"dataset": dataset, "regularizer": name, "lam": lam}
    for dataset in CONFIG.datasets
    for name in CONFIG.trained_on(dataset)
    if name in given_away(dataset)
    for lam in CONFIG.lam_texts(name, dataset)
]
RELEASED = list(
    dict.fromkeys((cell["dataset"], cell["regularizer"]) for cell in CANDIDATES)
)
NETWORKS = [
    f"{REPORT}/networks/{dataset}.{name}.safetensors" for dataset, name in RELEASED
]
MODEL_CARD = f"{REPORT}/networks/README.md"
# What the deposit holds of this project: enough to make tables and figures again, and to train.
PROJECT = ["CITATION.cff", "LICENSE", "README.md", "Snakefile", "pyproject.toml"]
PROJECT_FOLDERS = ["benchmarks", "config", "docs", "envs", "profiles", "src"]
PROJECT_FOLDERS += ["tests", "workflow"]


# Without the networks, all that tables, figures and notebook are made from.
rule archive:
    input:
        **code("archive"),
        record=PROVENANCE,
        examples=every_shown("examples.safetensors"),
    output:
        archive=f"{REPORT}/cells.zip",
    log:
        f"{LOGS}/archive.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        settings=lambda wildcards, input: text({"grid": grid(input.examples)}),
    message:
        "Pack the results without the networks"
    shell:
        command("archive")


if CONFIG.selection:

    # For others to attack.
    rule networks:
        input:
            **code("release_networks"),
            selection=SELECTION,
            models=[
                f"{NETWORK}/model.safetensors".format(**cell, seed=SEED)
                for cell in CANDIDATES
            ],
            training=[
                f"{NETWORK}/training.json".format(**cell, seed=SEED)
                for cell in CANDIDATES
            ],
            cells=CELLS,
            robustness=ROBUSTNESS,
        output:
            networks=NETWORKS,
            card_file=MODEL_CARD,
        log:
            f"{LOGS}/networks.log",
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            settings=text(
                {
                    "networks": [
                        {"dataset": dataset, "regularizer": name}
                        for dataset, name in RELEASED
                    ],
                    "cells": [
                        cell | {"lam": CONFIG.lam(cell["regularizer"], cell["lam"])}
                        for cell in CANDIDATES
                    ],
                    "headline": HEADLINE,
                }
            ),
        message:
            "Copy the selected networks and describe them"
        shell:
            command("release_networks")


# For a repository such as Zenodo: one archive with all of it, described as an RO-Crate.
rule deposit:
    input:
        **code("deposit"),
        record=PROVENANCE[0],
        examples=every_shown("examples.safetensors"),
        made=[
            PROVENANCE[1],
            NOTEBOOK,
            *TABLES,
            *FIGURES,
            *([*NETWORKS, MODEL_CARD] if CONFIG.selection else []),
        ],
        project=lambda wildcards: [*project_files(), *own_files()],
    output:
        archive=f"{REPORT}/deposit.zip",
    log:
        f"{LOGS}/deposit.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        settings=lambda wildcards, input: text({"grid": grid(input.examples)}),
    message:
        "Pack the results, the networks and the code for a deposit"
    shell:
        command("deposit")
