rule measure_recovery:
    input:
        script="workflow/scripts/measure_recovery.py",
        library=modules("measure_recovery"),
        data="data/{dataset}.safetensors",
    output:
        f"{RESULTS}/recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.csv",
    log:
        f"{LOGS}/recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.log",
    benchmark:
        f"{RESULTS}/recovery/{{dataset}}/{{regularizer}}/lam~{{lam}}.benchmark.tsv"
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(120),
        gpu=GPU,
    params:
        settings=lambda wildcards: cell_settings(wildcards, seed=config["seeds"][0]),
        recovery=json.dumps(RECOVERY),
        device=config["device"],
    message:
        "Measure estimators while training {wildcards.dataset}, {wildcards.regularizer}, lam {wildcards.lam}"
    shell:
        "python {input.script} --settings {params.settings:q} --recovery {params.recovery:q} "
        "--data {input.data} --device {params.device} --threads {threads} --output {output} "
        "> {log} 2>&1"


rule plot_recovery:
    input:
        script="workflow/scripts/plot_recovery.py",
        style=STYLE,
        library=modules("plot_recovery"),
        recovery=recovery_cells,
    output:
        pdf=f"{REPORT}/figures/recovery_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/recovery_{{dataset}}.png",
            caption="../report/recovery.rst",
            category="Curvature",
            labels={
                "figure": "what the estimators see of the norm",
                "dataset": "{dataset}",
                "regularizer": RECOVERY["regularizer"],
            },
        ),
    log:
        f"{LOGS}/plot_recovery/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw what the estimators find, {wildcards.dataset}"
    shell:
        "python {input.script} --recovery {input.recovery} --dataset {wildcards.dataset} "
        "--output {output} > {log} 2>&1"


rule measure_cost:
    input:
        script="workflow/scripts/measure_cost.py",
        library=modules("measure_cost"),
        data="data/{dataset}.safetensors",
    output:
        f"{RESULTS}/cost/{{dataset}}.csv",
    log:
        f"{LOGS}/cost/{{dataset}}.log",
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
        gpu=GPU,
    params:
        settings=cost_settings,
        device=config["device"],
    message:
        "Time training steps, {wildcards.dataset}"
    shell:
        "python {input.script} --dataset {wildcards.dataset} --settings {params.settings:q} "
        "--data {input.data} --device {params.device} --threads {threads} --output {output} "
        "> {log} 2>&1"


rule measure_curvature:
    input:
        script="workflow/scripts/measure_curvature.py",
        library=modules("measure_curvature"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/{CELL}/model.safetensors",
    output:
        f"{RESULTS}/{CELL}/curvature.parquet",
    log:
        f"{LOGS}/curvature/{CELL}.log",
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
        settings=image_settings,
        device=config["device"],
    message:
        f"Measure the curvature of {CELL_TEXT}"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--model {input.model} --device {params.device} --threads {threads} --output {output} "
        "> {log} 2>&1"


rule collect_curvature:
    input:
        script="workflow/scripts/collect_curvature.py",
        grid="workflow/scripts/grid.py",
        library=modules("collect_curvature"),
        curvature=cells(f"{RESULTS}/{CELL}/curvature.parquet"),
        perturbations=cells(f"{RESULTS}/{CELL}/perturbations.parquet"),
    output:
        report(
            f"{REPORT}/tables/curvature.csv",
            caption="../report/curvature_table.rst",
            category="Tables",
            labels={"table": "curvature and predicted radius"},
        ),
    log:
        f"{LOGS}/collect_curvature.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        grid=grid_settings,
    message:
        "Collect the curvature of all cells"
    shell:
        "python {input.script} --grid {params.grid:q} --output {output} > {log} 2>&1"


rule plot_curvature:
    input:
        script="workflow/scripts/plot_curvature.py",
        style=STYLE,
        library=modules("plot_curvature"),
        curvature=f"{REPORT}/tables/curvature.csv",
    output:
        pdf=f"{REPORT}/figures/curvature_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/curvature_{{dataset}}.png",
            caption="../report/curvature.rst",
            category="Curvature",
            labels={
                "figure": "gradient and Hessian norms of test images",
                "dataset": "{dataset}",
            },
        ),
    log:
        f"{LOGS}/plot_curvature/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw gradient and Hessian norms, {wildcards.dataset}"
    shell:
        "python {input.script} --curvature {input.curvature} --dataset {wildcards.dataset} "
        "--output {output} > {log} 2>&1"


rule plot_radius:
    input:
        script="workflow/scripts/plot_radius.py",
        style=STYLE,
        library=modules("plot_radius"),
        curvature=shown_cells("curvature.parquet"),
        perturbations=shown_cells("perturbations.parquet"),
        table=f"{REPORT}/tables/curvature.csv",
    output:
        pdf=f"{REPORT}/figures/radius_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/radius_{{dataset}}.png",
            caption="../report/radius.rst",
            category="Curvature",
            labels={
                "figure": "predicted radius against the smallest perturbation",
                "dataset": "{dataset}",
            },
        ),
    log:
        f"{LOGS}/plot_radius/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw predicted and found radii, {wildcards.dataset}"
    shell:
        "python {input.script} --curvature {input.curvature} "
        "--perturbations {input.perturbations} --table {input.table} "
        "--dataset {wildcards.dataset} --output {output} > {log} 2>&1"


# The side experiment with a certificate: a small smooth MLP, trained and attacked by the same code.
use rule train as train_certifiable with:
    output:
        models=f"{RESULTS}/certificate/{CELL}/model.safetensors",
        trainings=f"{RESULTS}/certificate/{CELL}/training.json",
        curves=f"{RESULTS}/certificate/{CELL}/curve.csv",
    log:
        f"{LOGS}/train_certifiable/{CELL}.log",
    benchmark:
        f"{RESULTS}/certificate/{CELL}/train.benchmark.tsv"
    params:
        settings=certifiable_settings,
        device=config["device"],
    message:
        f"Train the certifiable network, {CELL_TEXT}"


use rule attack as attack_certifiable with:
    input:
        script="workflow/scripts/attack.py",
        library=modules("attack"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/certificate/{CELL}/model.safetensors",
    output:
        images=f"{RESULTS}/certificate/{CELL}/images.parquet",
        perturbations=f"{RESULTS}/certificate/{CELL}/perturbations.parquet",
        evaluation=f"{RESULTS}/certificate/{CELL}/evaluation.json",
        examples=f"{RESULTS}/certificate/{CELL}/examples.safetensors",
    log:
        f"{LOGS}/attack_certifiable/{CELL}.log",
    benchmark:
        f"{RESULTS}/certificate/{CELL}/attack.benchmark.tsv"
    params:
        settings=certifiable_attack_settings,
        device=config["device"],
    message:
        f"Attack the certifiable network, {CELL_TEXT}"


rule certify:
    input:
        script="workflow/scripts/certify.py",
        library=modules("certify"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/certificate/{CELL}/model.safetensors",
        perturbations=f"{RESULTS}/certificate/{CELL}/perturbations.parquet",
    output:
        f"{RESULTS}/certificate/{CELL}/certificate.parquet",
    log:
        f"{LOGS}/certify/{CELL}.log",
    conda:
        "../../envs/pipeline.yaml"
    threads: 1
    resources:
        mem_mb=growing(3000),
        runtime=growing(30),
        gpu=0,
    message:
        f"Certify {CELL_TEXT}"
    shell:
        "python {input.script} --data {input.data} --model {input.model} "
        "--perturbations {input.perturbations} --threads {threads} --output {output} "
        "> {log} 2>&1"


rule plot_certificate:
    input:
        script="workflow/scripts/plot_certificate.py",
        style=STYLE,
        library=modules("plot_certificate"),
        certificates=certificates,
        cells=f"{REPORT}/tables/cells.csv",
    output:
        pdf=f"{REPORT}/figures/certificate_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/certificate_{{dataset}}.png",
            caption="../report/certificate.rst",
            category="Robust accuracy",
            labels={
                "figure": "certified under attacked accuracy",
                "dataset": "{dataset}",
            },
        ),
    log:
        f"{LOGS}/plot_certificate/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw certified accuracy, {wildcards.dataset}"
    shell:
        "python {input.script} --certificates {input.certificates} --cells {input.cells} "
        "--dataset {wildcards.dataset} --output {output} > {log} 2>&1"
