# From the data to what is known of every cell, in the order in which it is computed.

# Folders of networks: a cell's, the masked control's, those of the side experiment with a certificate.
NETWORK = f"{RESULTS}/{CELL}"
CONTROL = f"{RESULTS}/control/{{dataset}}"
CERTIFIABLE = f"{RESULTS}/certificate/{CELL}"
STRONGER = f"{RESULTS}/stronger_attacks/{{dataset}}"
TRAINED = ["model.safetensors", "training.json", "curve.csv"]
ATTACKED = [
    "images.parquet",
    "perturbations.parquet",
    "evaluation.json",
    "examples.safetensors",
]
# What is measured beside the attacks: file, section of the configuration.
MEASURED = {
    "masking.json": CONFIG.masking,
    "curvature.parquet": CONFIG.curvature,
    "path.parquet": CONFIG.path,
    "validation.json": CONFIG.selection,
}
EVALUATED = ATTACKED + [name for name, section in MEASURED.items() if section]
NOT_EVALUATED = [
    name.partition(".")[0] for name, section in MEASURED.items() if not section
]


rule prepare_dataset:
    input:
        **code("prepare_dataset"),
        definition=lambda wildcards: plugin(
            "dataset", CONFIG.dataset_file(wildcards.dataset)
        ),
    output:
        data=DATA,
        provenance="data/{dataset}.json",
    log:
        f"{LOGS}/prepare_dataset/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        # Not a param: where the verified files come from changes nothing in them. Nothing would vanish
        # from the shell line.
        mirror=CONFIG.mirror or "none",
    params:
        dataset=lambda wildcards: CONFIG.dataset_file(wildcards.dataset),
        raw="data/raw/{dataset}",
    message:
        "Prepare {wildcards.dataset}: download, verify, split"
    shell:
        command("prepare_dataset")


rule train:
    input:
        **code("train"),
        penalty=lambda wildcards: plugin(
            "penalty", CONFIG.regularizers[wildcards.regularizer].penalty
        ),
        architecture=plugin("architecture", CONFIG.model["architecture"]),
        data=DATA,
    output:
        **files(NETWORK, *TRAINED),
    log:
        f"{LOGS}/train/{CELL}.log",
    benchmark:
        f"{NETWORK}/train.benchmark.tsv"
    wildcard_constraints:
        regularizer=alternatives(CONFIG.regularizers),
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        **job(minutes=120),
    params:
        settings=lambda wildcards: text(training_settings(wildcards)),
        device=DEVICE,
    message:
        f"Train {CELL_TEXT}"
    shell:
        command("train")


if CONFIG.networks:

    # Instead of `train`: a network of the user's own, in the form that all later steps read.
    rule import_network:
        input:
            **code("import_network"),
            architecture=lambda wildcards: factory(
                CONFIG.networks[wildcards.regularizer].architecture
            ),
            checkpoint=lambda wildcards: project_file(
                CONFIG.networks[wildcards.regularizer].checkpoint
            ),
            data=DATA,
        output:
            **files(NETWORK, *TRAINED),
        log:
            f"{LOGS}/import_network/{CELL}.log",
        wildcard_constraints:
            regularizer=alternatives(CONFIG.networks),
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=10),
        params:
            settings=lambda wildcards: text(network_settings(wildcards)),
        message:
            "Import {wildcards.regularizer}, {wildcards.dataset}"
        shell:
            command("import_network")


# All that is measured of a cell is one job; what has not changed of it is kept (see evaluate.py).
rule evaluate:
    input:
        **code("evaluate"),
        **files(NETWORK, "model.safetensors"),
        data=DATA,
    output:
        **files(NETWORK, *EVALUATED),
    log:
        f"{LOGS}/evaluate/{CELL}.log",
    benchmark:
        f"{NETWORK}/evaluate.benchmark.tsv"
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        **job(minutes=240),
    params:
        settings=lambda wildcards: text(evaluation_settings(identity(wildcards))),
        device=DEVICE,
    message:
        f"Evaluate {CELL_TEXT}"
    shell:
        command("evaluate", without=NOT_EVALUATED)


if CONFIG.masking:

    # The positive control: plain training's network, its gradients made useless.
    rule evaluate_control:
        input:
            **code("evaluate_control"),
            model=f"{RESULTS}/{{dataset}}/none/lam~0/seed~{SEED}/model.safetensors",
            data=DATA,
        output:
            **files(CONTROL, *ATTACKED, "masking.json"),
            masked=f"{CONTROL}/model.safetensors",
        log:
            f"{LOGS}/evaluate_control/{{dataset}}.log",
        benchmark:
            f"{CONTROL}/evaluate.benchmark.tsv"
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=240),
        params:
            settings=lambda wildcards: text(
                evaluation_settings(
                    control(wildcards.dataset), epsilons=HEADLINE[wildcards.dataset]
                )
            ),
            device=DEVICE,
        message:
            "Mask the gradients of the control and evaluate it, {wildcards.dataset}"
        shell:
            command("evaluate_control")


if CONFIG.selection:

    rule select_lam:
        input:
            **code("select_lam"),
            validation=cells(f"{NETWORK}/validation.json"),
        output:
            selection=f"{RESULTS}/selection.csv",
        log:
            f"{LOGS}/select_lam.log",
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            settings=lambda wildcards, input: text(
                {"grid": grid(input), "max_clean_loss": MAX_CLEAN_LOSS}
            ),
        message:
            "Select a lam per dataset and regularizer"
        shell:
            command("select_lam")


if CONFIG.stronger_attacks:

    # Which lams are selected is known only once all are validated. One job per dataset, with every cell
    # of the seed as input, keeps the plan complete from the start, without a checkpoint.
    rule run_stronger_attacks:
        input:
            **code("run_stronger_attacks"),
            selection=f"{RESULTS}/selection.csv",
            data=DATA,
            models=first_seed("model.safetensors"),
            earlier=first_seed("images.parquet"),
        output:
            images=f"{STRONGER}.parquet",
            transfer=f"{STRONGER}.transfer.csv",
        log:
            f"{LOGS}/run_stronger_attacks/{{dataset}}.log",
        benchmark:
            f"{STRONGER}.benchmark.tsv"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=480),
        params:
            settings=lambda wildcards: text(
                {
                    "dataset": wildcards.dataset,
                    "seed": SEED,
                    "cells": [  # in the order of the inputs
                        {"regularizer": name, "lam": lam}
                        for name in CONFIG.evaluated_on(wildcards.dataset)
                        for lam in CONFIG.lam_texts(name, wildcards.dataset).values()
                    ],
                    "images": CONFIG.stronger_attacks.images,
                    "epsilons": HEADLINE[wildcards.dataset],
                    "attacks": CONFIG.more_attacks,
                }
            ),
            device=DEVICE,
        message:
            "Attack the selected networks of {wildcards.dataset} harder"
        shell:
            command("run_stronger_attacks")


if CONFIG.cost:

    rule measure_cost:
        input:
            **code("measure_cost"),
            penalties=lambda wildcards: [
                file
                for name in CONFIG.trained_on(wildcards.dataset)
                for file in plugin("penalty", CONFIG.regularizers[name].penalty)
            ],
            architecture=plugin("architecture", CONFIG.model["architecture"]),
            data=DATA,
        output:
            cost=f"{RESULTS}/cost/{{dataset}}.csv",
        log:
            f"{LOGS}/measure_cost/{{dataset}}.log",
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=30),
        params:
            # Every regularizer, at its first lam.
            settings=lambda wildcards: text(
                {
                    "model": CONFIG.model,
                    "batch_size": CONFIG.training.batch_size,
                    "rounds": CONFIG.cost.rounds,
                    "regularizers": {
                        name: CONFIG.penalty(
                            name, CONFIG.regularizers[name].lams(wildcards.dataset)[0]
                        )
                        for name in CONFIG.trained_on(wildcards.dataset)
                    },
                }
            ),
            dataset="{dataset}",
            device=DEVICE,
        message:
            "Time training steps, {wildcards.dataset}"
        shell:
            command("measure_cost")


if CONFIG.recovery:

    rule measure_recovery:
        input:
            **code("measure_recovery"),
            penalty=lambda wildcards: plugin(
                "penalty", CONFIG.regularizers[wildcards.regularizer].penalty
            ),
            architecture=plugin("architecture", CONFIG.model["architecture"]),
            data=DATA,
        output:
            recovery=f"{RESULTS}/recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.csv",
        log:
            f"{LOGS}/measure_recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.log",
        benchmark:
            f"{RESULTS}/recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.benchmark.tsv"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=120),
        params:
            settings=lambda wildcards: text(
                training_settings(wildcards)
                | {"recovery": CONFIG.recovery.model_dump(exclude_none=True)}
            ),
            device=DEVICE,
        message:
            "Measure estimators while training {wildcards.dataset}, {wildcards.regularizer}, lam {wildcards.lam}"
        shell:
            command("measure_recovery")


if CONFIG.certificate:

    # The side experiment with a certificate: a small smooth MLP, trained and attacked by the same code.
    use rule train as train_certifiable with:
        input:
            **code("train"),
            penalty=lambda wildcards: plugin(
                "penalty", CONFIG.regularizers[wildcards.regularizer].penalty
            ),
            architecture=plugin(
                "architecture", CONFIG.certificate.model["architecture"]
            ),
            data=DATA,
        output:
            **files(CERTIFIABLE, *TRAINED),
        log:
            f"{LOGS}/train_certifiable/{CELL}.log",
        benchmark:
            f"{CERTIFIABLE}/train.benchmark.tsv"
        params:
            settings=lambda wildcards: text(
                training_settings(wildcards) | {"model": CONFIG.certificate.model}
            ),
            device=DEVICE,
        message:
            f"Train the certifiable network, {CELL_TEXT}"

    rule certify:
        input:
            **code("certify"),
            **files(CERTIFIABLE, "model.safetensors"),
            data=DATA,
        output:
            **files(CERTIFIABLE, *ATTACKED, "certificate.parquet"),
        log:
            f"{LOGS}/certify/{CELL}.log",
        benchmark:
            f"{CERTIFIABLE}/certify.benchmark.tsv"
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=120),
        params:
            # Of the attacks, the one that finds the smallest l2 perturbation.
            settings=lambda wildcards: text(
                evaluation_settings(
                    identity(wildcards),
                    attacks=[
                        attack
                        for attack in CONFIG.attacks
                        if attack["attack"] == "ddn"
                    ],
                )["attack"]
            ),
            device=DEVICE,
        message:
            f"Attack and certify {CELL_TEXT}"
        shell:
            command("certify")
