CONTROL = f"{RESULTS}/control/{{dataset}}"


rule check_masking:
    input:
        script="workflow/scripts/check_masking.py",
        library=modules("check_masking"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/{CELL}/model.safetensors",
        images=f"{RESULTS}/{CELL}/images.parquet",
    output:
        f"{RESULTS}/{CELL}/masking.json",
    log:
        f"{LOGS}/check_masking/{CELL}.log",
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
        settings=masking_settings,
        device=config["device"],
    message:
        f"Check {CELL_TEXT} for gradient masking"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--model {input.model} --images {input.images} --device {params.device} "
        "--threads {threads} --output {output} > {log} 2>&1"


# The positive control: plain training's network, its gradients made useless.
rule mask_gradients:
    input:
        script="workflow/scripts/mask_gradients.py",
        library=modules("mask_gradients"),
        model=plain_model,
    output:
        f"{CONTROL}/model.safetensors",
    log:
        f"{LOGS}/mask_gradients/{{dataset}}.log",
    group:
        "cell"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(10),
        gpu=0,
    message:
        "Mask the gradients of the control, {wildcards.dataset}"
    shell:
        "python {input.script} --model {input.model} --output {output} > {log} 2>&1"


use rule attack as attack_control with:
    input:
        script="workflow/scripts/attack.py",
        library=modules("attack"),
        data="data/{dataset}.safetensors",
        model=f"{CONTROL}/model.safetensors",
    output:
        images=f"{CONTROL}/images.parquet",
        perturbations=f"{CONTROL}/perturbations.parquet",
        evaluation=f"{CONTROL}/evaluation.json",
        examples=f"{CONTROL}/examples.safetensors",
    log:
        f"{LOGS}/attack_control/{{dataset}}.log",
    benchmark:
        f"{CONTROL}/attack.benchmark.tsv"
    params:
        settings=control_attack_settings,
        device=config["device"],
    message:
        "Attack the masked control, {wildcards.dataset}"


use rule check_masking as check_masking_control with:
    input:
        script="workflow/scripts/check_masking.py",
        library=modules("check_masking"),
        data="data/{dataset}.safetensors",
        model=f"{CONTROL}/model.safetensors",
        images=f"{CONTROL}/images.parquet",
    output:
        f"{CONTROL}/masking.json",
    log:
        f"{LOGS}/check_masking_control/{{dataset}}.log",
    params:
        settings=control_masking_settings,
        device=config["device"],
    message:
        "Check the masked control for gradient masking, {wildcards.dataset}"


rule collect_masking:
    input:
        script="workflow/scripts/collect_masking.py",
        grid="workflow/scripts/grid.py",
        library=modules("collect_masking"),
        cells=cells(f"{RESULTS}/{CELL}/masking.json"),
        controls=expand(f"{CONTROL}/masking.json", dataset=DATASETS),
    output:
        report(
            f"{REPORT}/tables/masking.csv",
            caption="../report/masking_table.rst",
            category="Tables",
            labels={"table": "masking checks"},
        ),
    log:
        f"{LOGS}/collect_masking.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        grid=grid_settings,
    message:
        "Collect the masking checks"
    shell:
        "python {input.script} --grid {params.grid:q} --output {output} > {log} 2>&1"


rule plot_masking:
    input:
        script="workflow/scripts/plot_masking.py",
        style=STYLE,
        library=modules("plot_masking"),
        masking=f"{REPORT}/tables/masking.csv",
    output:
        pdf=f"{REPORT}/figures/masking.pdf",
        png=report(
            f"{REPORT}/figures/masking.png",
            caption="../report/masking.rst",
            category="Robust accuracy",
            labels={"figure": "gradient masking checks"},
        ),
    log:
        f"{LOGS}/plot_masking.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw the masking checks"
    shell:
        "python {input.script} --masking {input.masking} --output {output} > {log} 2>&1"
