rule attack:
    input:
        script="workflow/scripts/attack.py",
        library=modules("attack"),
        data="data/{dataset}.safetensors",
        model=f"{RESULTS}/{CELL}/model.safetensors",
    output:
        images=f"{RESULTS}/{CELL}/images.parquet",
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
        runtime=growing(120),
        gpu=GPU,
    params:
        settings=attack_settings,
        device=config["device"],
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--model {input.model} --device {params.device} "
        "--threads {threads} --images {output.images} --evaluation {output.evaluation} "
        "--examples {output.examples} > {log} 2>&1"
