rule attack:
    input:
        script="workflow/scripts/attack.py",
        library=modules("attack"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/{CELL}/model.safetensors",
    output:
        images=f"{RESULTS}/{CELL}/images.parquet",
        perturbations=f"{RESULTS}/{CELL}/perturbations.parquet",
        evaluation=f"{RESULTS}/{CELL}/evaluation.json",
        examples=f"{RESULTS}/{CELL}/examples.safetensors",
    log:
        f"{LOGS}/attack/{CELL}.log",
    benchmark:
        f"{RESULTS}/{CELL}/attack.benchmark.tsv"
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(240),
        gpu=GPU,
    params:
        settings=attack_settings,
        device=config["device"],
    message:
        f"Attack {CELL_TEXT}"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--model {input.model} --library {input.script} {input.library} "
        "--device {params.device} --threads {threads} --images {output.images} "
        "--perturbations {output.perturbations} --evaluation {output.evaluation} "
        "--examples {output.examples} > {log} 2>&1"


rule validate:
    input:
        script="workflow/scripts/validate.py",
        library=modules("validate"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/{CELL}/model.safetensors",
    output:
        f"{RESULTS}/{CELL}/validation.json",
    log:
        f"{LOGS}/validate/{CELL}.log",
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(60),
        gpu=GPU,
    params:
        settings=validation_settings,
        device=config["device"],
    message:
        f"Attack validation images of {CELL_TEXT}"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--model {input.model} --device {params.device} --threads {threads} --output {output} "
        "> {log} 2>&1"


rule select_lam:
    input:
        script="workflow/scripts/select_lam.py",
        grid="workflow/scripts/grid.py",
        library=modules("select_lam"),
        validation=cells(f"{RESULTS}/{CELL}/validation.json"),
    output:
        f"{RESULTS}/selection.csv",
    log:
        f"{LOGS}/select_lam.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        grid=grid_settings,
        max_clean_loss=SELECTION["max_clean_loss"],
    message:
        "Select a lam per dataset and regularizer"
    shell:
        "python {input.script} --grid {params.grid:q} --max-clean-loss {params.max_clean_loss} "
        "--output {output} > {log} 2>&1"


# Which weight is selected is known only once all are validated. One job per regularizer and seed,
# with every weight as input, keeps the plan complete from the start, without a checkpoint.
rule attack_selected:
    input:
        script="workflow/scripts/attack_selected.py",
        library=modules("attack_selected"),
        selection=f"{RESULTS}/selection.csv",
        data="data/{dataset}.safetensors",
        models=lam_siblings(f"{RESULTS}/{CELL}/model.safetensors"),
        images=lam_siblings(f"{RESULTS}/{CELL}/images.parquet"),
    output:
        f"{RESULTS}/{SELECTED}/images.parquet",
    log:
        f"{LOGS}/attack_selected/{SELECTED}.log",
    benchmark:
        f"{RESULTS}/{SELECTED}/attack.benchmark.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(480),
        gpu=GPU,
    params:
        settings=selected_settings,
        device=config["device"],
    message:
        "Attack the selected {wildcards.dataset}, {wildcards.regularizer}, seed {wildcards.seed}"
    shell:
        "python {input.script} --settings {params.settings:q} --selection {input.selection} "
        "--data {input.data} --models {input.models} --earlier {input.images} "
        "--library {input.script} {input.library} --device {params.device} --threads {threads} "
        "--images {output} > {log} 2>&1"
