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
            },
        ),
    log:
        f"{LOGS}/plot_recovery/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
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
    shell:
        "python {input.script} --dataset {wildcards.dataset} --settings {params.settings:q} "
        "--data {input.data} --device {params.device} --threads {threads} --output {output} "
        "> {log} 2>&1"
