rule prepare_dataset:
    input:
        script="workflow/scripts/prepare_dataset.py",
        library=modules("prepare_dataset"),
    output:
        data="data/{dataset}.safetensors",
        provenance="data/{dataset}.json",
    log:
        f"{LOGS}/prepare_dataset/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    resources:
        # Not a param: where the verified files come from changes nothing in them.
        mirror=config["mirror"],
    params:
        raw="data/raw/{dataset}",
    message:
        "Prepare {wildcards.dataset}: download, verify, split"
    shell:
        "python {input.script} --dataset {wildcards.dataset} --mirror {resources.mirror:q} "
        "--raw {params.raw} --output {output.data} --provenance {output.provenance} "
        "> {log} 2>&1"
