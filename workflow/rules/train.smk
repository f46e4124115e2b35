rule train:
    input:
        script="workflow/scripts/train.py",
        library=modules("train"),
        data="data/{dataset}.safetensors",
    output:
        model=f"{RESULTS}/{CELL}/model.safetensors",
        training=f"{RESULTS}/{CELL}/training.json",
        curve=f"{RESULTS}/{CELL}/curve.csv",
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
        settings=cell_settings,
        device=config["device"],
    message:
        f"Train {CELL_TEXT}"
    shell:
        "python {input.script} --settings {params.settings:q} --data {input.data} "
        "--library {input.script} {input.library} --device {params.device} --threads {threads} "
        "--model {output.model} --training {output.training} --curve {output.curve} "
        "> {log} 2>&1"
