NOTEBOOK = f"{REPORT}/notebook.html"
# What the notebook imports from the library, as MODULES says it of scripts.
NOTEBOOK_MODULES = [
    "curvature",
    "datasets",
    "errors",
    "files",
    "models",
    "radius",
    "results",
    "statistics",
    "tables",
]


rule run_notebook:
    input:
        script="workflow/scripts/run_notebook.py",
        notebook="workflow/notebooks/results.ipynb",
        style=STYLE,
        library=[
            *modules("run_notebook"),
            *(f"src/input_hessian/{name}.py" for name in NOTEBOOK_MODULES),
        ],
        tables=[
            f"{REPORT}/tables/{name}.csv"
            for name in (
                "cells",
                "claims",
                "curvature",
                "comparison",
                "summary",
                "autoattack",
                "masking",
            )
        ],
        cost=expand(f"{RESULTS}/cost/{{dataset}}.csv", dataset=DATASETS),
        data=expand("data/{dataset}.safetensors", dataset=DATASETS),
        models=shown_everywhere("model.safetensors"),
        training=shown_everywhere("training.json"),
        curvature=shown_everywhere("curvature.parquet"),
        perturbations=shown_everywhere("perturbations.parquet"),
    output:
        report(
            NOTEBOOK,
            caption="../report/notebook.rst",
            category="Notebook",
            labels={"notebook": "the results, step by step"},
        ),
    log:
        f"{LOGS}/run_notebook.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        name=config["name"],
    message:
        "Run the notebook"
    shell:
        "python {input.script} --notebook {input.notebook} --name {params.name:q} "
        "--output {output} > {log} 2>&1"
