# What leaves this machine. Each is asked for by its name.

NETWORKS = [
    f"{REPORT}/networks/{dataset}.{name}.safetensors"
    for dataset in CONFIG.datasets
    for name in CONFIG.trained_on(dataset)
]
MODEL_CARD = f"{REPORT}/networks/README.md"
# What the deposit holds of this project: enough to make tables and figures again, and to train.
PROJECT = ["CITATION.cff", "LICENSE", "README.md", "Snakefile", "pyproject.toml"]
PROJECT_FOLDERS = ["config", "docs", "envs", "profiles", "src", "workflow"]


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

    # A network per regularizer, for others to attack.
    rule networks:
        input:
            **code("release_networks"),
            selection=SELECTION,
            models=first_seed("model.safetensors"),
            training=first_seed("training.json"),
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
                        for dataset in CONFIG.datasets
                        for name in CONFIG.trained_on(dataset)
                    ],
                    "cells": [
                        {"dataset": dataset, "regularizer": name, "lam": lam}
                        for dataset in CONFIG.datasets
                        for name in CONFIG.trained_on(dataset)
                        for lam in CONFIG.regularizers[name].lams(dataset)
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
