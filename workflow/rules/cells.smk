# From the data to what is known of every cell, in the order in which it is computed.

# Folders of networks: a cell's, the masked control's, those of the side experiment with a certificate.
NETWORK = f"{RESULTS}/{CELL}"
CONTROL = f"{RESULTS}/control/{{dataset}}"
CERTIFIABLE = f"{RESULTS}/certificate/{CELL}"
TRAINED = ["model.safetensors", "training.json", "curve.csv"]
ATTACKED = [
    "images.parquet",
    "perturbations.parquet",
    "evaluation.json",
    "examples.safetensors",
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
        mirror=CONFIG.mirror,  # not a param: where the verified files come from changes nothing in them
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


rule attack:
    input:
        **code("attack"),
        **files(NETWORK, "model.safetensors"),
        data=DATA,
    output:
        **files(NETWORK, *ATTACKED),
    log:
        f"{LOGS}/attack/{CELL}.log",
    benchmark:
        f"{NETWORK}/attack.benchmark.tsv"
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    resources:
        **job(minutes=240),
    params:
        settings=lambda wildcards: text(attack_settings(identity(wildcards))),
        device=DEVICE,
    message:
        f"Attack {CELL_TEXT}"
    shell:
        command("attack")


if CONFIG.curvature:

    rule measure_curvature:
        input:
            **code("measure_curvature"),
            **files(NETWORK, "model.safetensors"),
            data=DATA,
        output:
            **files(NETWORK, "curvature.parquet"),
        log:
            f"{LOGS}/measure_curvature/{CELL}.log",
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=60),
        params:
            settings=lambda wildcards: text(
                {"cell": identity(wildcards), "images": CONFIG.curvature.images}
            ),
            device=DEVICE,
        message:
            f"Measure the curvature of {CELL_TEXT}"
        shell:
            command("measure_curvature")


if CONFIG.masking:

    rule check_masking:
        input:
            **code("check_masking"),
            **files(NETWORK, "model.safetensors", "images.parquet"),
            data=DATA,
        output:
            **files(NETWORK, "masking.json"),
        log:
            f"{LOGS}/check_masking/{CELL}.log",
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=120),
        params:
            settings=lambda wildcards: text(masking_settings(identity(wildcards))),
            device=DEVICE,
        message:
            f"Check {CELL_TEXT} for gradient masking"
        shell:
            command("check_masking")

    # The positive control: plain training's network, its gradients made useless.
    rule mask_gradients:
        input:
            **code("mask_gradients"),
            model=f"{RESULTS}/{{dataset}}/none/lam~0/seed~{SEED}/model.safetensors",
        output:
            masked=f"{CONTROL}/model.safetensors",
        log:
            f"{LOGS}/mask_gradients/{{dataset}}.log",
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=10, gpu=0),
        message:
            "Mask the gradients of the control, {wildcards.dataset}"
        shell:
            command("mask_gradients")

    use rule attack as attack_control with:
        input:
            **code("attack"),
            **files(CONTROL, "model.safetensors"),
            data=DATA,
        output:
            **files(CONTROL, *ATTACKED),
        log:
            f"{LOGS}/attack_control/{{dataset}}.log",
        benchmark:
            f"{CONTROL}/attack.benchmark.tsv"
        params:
            settings=lambda wildcards: text(
                attack_settings(
                    control(wildcards.dataset), epsilons=HEADLINE[wildcards.dataset]
                )
            ),
            device=DEVICE,
        message:
            "Attack the masked control, {wildcards.dataset}"

    use rule check_masking as check_masking_control with:
        input:
            **code("check_masking"),
            **files(CONTROL, "model.safetensors", "images.parquet"),
            data=DATA,
        output:
            **files(CONTROL, "masking.json"),
        log:
            f"{LOGS}/check_masking_control/{{dataset}}.log",
        params:
            settings=lambda wildcards: text(
                masking_settings(control(wildcards.dataset))
            ),
            device=DEVICE,
        message:
            "Check the masked control for gradient masking, {wildcards.dataset}"


if CONFIG.selection:

    SELECTED = "{dataset}/{regularizer}/selected/seed~{seed}"

    rule validate:
        input:
            **code("validate"),
            **files(NETWORK, "model.safetensors"),
            data=DATA,
        output:
            **files(NETWORK, "validation.json"),
        log:
            f"{LOGS}/validate/{CELL}.log",
        group:
            "cell"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=60),
        params:
            settings=lambda wildcards: text(
                {
                    "cell": identity(wildcards),
                    "images": CONFIG.selection.images,
                    "steps": CONFIG.selection.steps,
                    "headline": HEADLINE[wildcards.dataset],
                }
            ),
            device=DEVICE,
        message:
            f"Attack validation images of {CELL_TEXT}"
        shell:
            command("validate")

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
            settings=lambda wildcards, input: text({"grid": grid(input)}),
            max_clean_loss=CONFIG.selection.max_clean_loss,
        message:
            "Select a lam per dataset and regularizer"
        shell:
            command("select_lam")

    # Which lam is selected is known only once all are validated. One job per regularizer and seed,
    # with every lam as input, keeps the plan complete from the start, without a checkpoint.
    rule attack_selected:
        input:
            **code("attack_selected"),
            selection=f"{RESULTS}/selection.csv",
            data=DATA,
            models=every_lam("model.safetensors"),
            earlier=every_lam("images.parquet"),
        output:
            images=f"{RESULTS}/{SELECTED}/images.parquet",
        log:
            f"{LOGS}/attack_selected/{SELECTED}.log",
        benchmark:
            f"{RESULTS}/{SELECTED}/attack.benchmark.tsv"
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=480),
        params:
            settings=lambda wildcards: text(
                {
                    "cells": [
                        {
                            "dataset": wildcards.dataset,
                            "regularizer": wildcards.regularizer,
                            "lam": lam,
                            "seed": int(wildcards.seed),
                        }
                        for lam in CONFIG.lam_texts(wildcards.regularizer).values()
                    ],
                    "images": CONFIG.evaluation.images,
                    "epsilons": HEADLINE[wildcards.dataset],
                    "attacks": CONFIG.selected_attacks,
                }
            ),
            device=DEVICE,
        message:
            "Attack the selected {wildcards.dataset}, {wildcards.regularizer}, seed {wildcards.seed}"
        shell:
            command("attack_selected")


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
                        name: CONFIG.penalty(name, CONFIG.regularizers[name].lam[0])
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

    use rule attack as attack_certifiable with:
        input:
            **code("attack"),
            **files(CERTIFIABLE, "model.safetensors"),
            data=DATA,
        output:
            **files(CERTIFIABLE, *ATTACKED),
        log:
            f"{LOGS}/attack_certifiable/{CELL}.log",
        benchmark:
            f"{CERTIFIABLE}/attack.benchmark.tsv"
        params:
            # Of the attacks, the one that finds the smallest l2 perturbation.
            settings=lambda wildcards: text(
                attack_settings(
                    identity(wildcards),
                    attacks=[
                        attack
                        for attack in CONFIG.attacks
                        if attack["attack"] == "ddn"
                    ],
                )
            ),
            device=DEVICE,
        message:
            f"Attack the certifiable network, {CELL_TEXT}"

    rule certify:
        input:
            **code("certify"),
            **files(CERTIFIABLE, "model.safetensors", "perturbations.parquet"),
            data=DATA,
        output:
            **files(CERTIFIABLE, "certificate.parquet"),
        log:
            f"{LOGS}/certify/{CELL}.log",
        conda:
            "../../envs/pipeline.yaml"
        resources:
            **job(minutes=30, gpu=0),
        message:
            f"Certify {CELL_TEXT}"
        shell:
            command("certify")
