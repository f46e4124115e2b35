rule train:
    input:
        script="workflow/scripts/train.py",
        library=modules("train"),
        data="data/{dataset}.safetensors",
    output:
        models=f"{RESULTS}/{CELL}/model.safetensors",
        trainings=f"{RESULTS}/{CELL}/training.json",
        curves=f"{RESULTS}/{CELL}/curve.csv",
    log:
        f"{LOGS}/train/{CELL}.log",
    benchmark:
        f"{RESULTS}/{CELL}/train.benchmark.tsv"
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
        gpu=GPU,
    params:
        settings=training_settings,
        device=config["device"],
    message:
        f"Train {CELL_TEXT}"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--library {input.script} {input.library} --device {params.device} --threads {threads} "
        "--models {output.models} --trainings {output.trainings} --curves {output.curves} "
        "> {log} 2>&1"


# With `batch_cells`, one job trains several cells. Wildcards cannot say which, so each batch has a
# rule of its own, with the same files as output.
for batch in BATCHES:

    rule:
        name:
            batch.name
        input:
            script="workflow/scripts/train.py",
            library=modules("train"),
            data=f"data/{batch.dataset}.safetensors",
        output:
            models=batch.paths("model.safetensors"),
            trainings=batch.paths("training.json"),
            curves=batch.paths("curve.csv"),
        log:
            f"{LOGS}/{batch.name}.log",
        benchmark:
            batch.paths("train.benchmark.tsv")[0]
        conda:
            "../../envs/pipeline.yaml"
        threads: 1
        resources:
            mem_mb=growing(3000 + 300 * len(batch.cells)),
            runtime=growing(120 + 10 * len(batch.cells)),
            gpu=GPU,
        params:
            # Of a training one by one; the job's own time is in the first cell's folder.
            stale=batch.paths("train.benchmark.tsv")[1:],
            settings=batch.settings,
            device=config["device"],
        message:
            f"Train {len(batch.cells)} cells together: {batch.text}"
        shell:
            "rm -f {params.stale}; "
            "python {input.script} --settings {params.settings:q} --data {input.data} "
            "--library {input.script} {input.library} --device {params.device} --threads {threads} "
            "--models {output.models} --trainings {output.trainings} --curves {output.curves} "
            "> {log} 2>&1"

    workflow.ruleorder(batch.name, "train")
