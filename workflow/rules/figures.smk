# Every figure is an entry of the table below; a loop makes its rule. Then the notebook.

NOTEBOOK = f"{REPORT}/notebook.html"


DDN = attacked_by("ddn", "l2")
PGD = [norm for norm in ("linf", "l2") if attacked_by("pgd", norm)]
WITH_HEADLINE = {"headline": HEADLINE}

# figure: what it shows (its label in the HTML report), where it stands there, the job that draws it with
# others that need the same, what its script reads, and what it depends on beside that. One with
# {dataset} or {norm} in its name is drawn for each of them.
# A label holds what a figure is about, and is left out where that is everything: of a label with two
# values, the report makes a switch, and breaks where one side of it is missing.
FIGURE_TABLE = {
    "pareto": {
        "shows": "robust accuracy against clean error",
        "job": "accuracies",
        "category": "Robust accuracy",
        "input": {"cells": CELLS, "groups": GROUPS},
        "settings": WITH_HEADLINE,
    },
    "robustness_{dataset}": {
        "shows": "robust accuracy against epsilon",
        "job": "accuracies",
        "category": "Robust accuracy",
        "input": {
            "groups": GROUPS,
            "published": project_file(CLONE / "workflow/resources/published.csv"),
        },
    },
    "learning_curves_{dataset}": {
        "shows": "learning curves",
        "job": "accuracies",
        "category": "Training",
        "input": {"curves": f"{REPORT}/tables/curves.csv"},
    },
}
if CONFIG.comparison:
    FIGURE_TABLE["headline"] = {
        "shows": "robust accuracy at a limited loss of clean accuracy",
        "job": "accuracies",
        "category": "Robust accuracy",
        "input": {"matched": MATCHED},
        "params": {"reference": CONFIG.comparison.reference},
        "settings": {"max_clean_loss": MAX_CLEAN_LOSS},
    }
if CONFIG.selection:
    FIGURE_TABLE["autoattack"] = {
        "shows": "what each attack overlooks",
        "job": "accuracies",
        "category": "Robust accuracy",
        "input": {"table": f"{REPORT}/tables/autoattack.csv"},
    }
if CONFIG.cost:
    FIGURE_TABLE["cost"] = {
        "shows": "cost of a training step",
        "job": "cost",
        "category": "Training",
        "input": {"cost": COSTS},
    }
if CONFIG.masking:
    FIGURE_TABLE["masking"] = {
        "shows": "gradient masking checks",
        "job": "accuracies",
        "category": "Robust accuracy",
        "input": {"masking": f"{REPORT}/tables/masking.csv"},
    }
if CONFIG.curvature:
    FIGURE_TABLE["curvature_{dataset}"] = {
        "shows": "gradient and Hessian norms of test images",
        "job": "networks",
        "category": "Curvature",
        "input": {"curvature": CURVATURE},
    }
if CONFIG.curvature and DDN:
    FIGURE_TABLE["radius_{dataset}"] = {
        "shows": "predicted radius against the smallest perturbation",
        "job": "networks",
        "category": "Curvature",
        "input": {
            "curvature": lambda dataset: shown("curvature.parquet", dataset),
            "perturbations": lambda dataset: shown("perturbations.parquet", dataset),
            "table": CURVATURE,
        },
    }
if CONFIG.path:
    FIGURE_TABLE["path"] = {
        "shows": "what the loss rises by along the path of an attack",
        "job": "accuracies",
        "category": "Curvature",
        "input": {"path": PATH},
    }
if CONFIG.recovery:
    FIGURE_TABLE["recovery_{dataset}"] = {
        "shows": "what the estimators find of the norm",
        "job": "recovery",
        "category": "Curvature",
        "labels": {"regularizer": CONFIG.recovery.regularizer},
        "input": {"recovery": recoveries},
    }
if CONFIG.certificate:
    FIGURE_TABLE["certificate_{dataset}"] = {
        "shows": "certified and attacked accuracy",
        "job": "certificate",
        "category": "Robust accuracy",
        "input": {
            "certificates": certificates,
            "cells": CELLS,
        },
    }
if PGD:
    FIGURE_TABLE["examples_{dataset}_{norm}"] = {
        "shows": "adversarial examples",
        "job": "networks",
        "category": "Adversarial examples",
        "input": {
            "data": lambda dataset: DATA.format(dataset=dataset),
            "examples": lambda dataset: shown("examples.safetensors", dataset),
            "training": lambda dataset: shown("training.json", dataset),
        },
    }


# Job: the figures that it draws. Each needs a second or two, the start of a process more.
DRAWINGS = {}
for figure, entry in FIGURE_TABLE.items():
    DRAWINGS.setdefault(entry["job"], []).extend(
        (f"plot_{script}", drawing) for script, drawing in drawings(figure, entry)
    )
FIGURES = [
    path
    for drawn in DRAWINGS.values()
    for _, drawing in drawn
    for path in drawing["output"].values()
]


for job_name, drawn in DRAWINGS.items():
    inputs, calls = together(drawn)

    rule:
        name:
            f"draw_{job_name}"
        input:
            **inputs,
        output:
            [
                file
                for _, drawing in drawn
                for file in (
                    drawing["output"]["pdf"],
                    report(drawing["output"]["png"], **drawing["report"]),
                )
            ],
        log:
            f"{LOGS}/draw_{job_name}.log",
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            settings=calls,
        message:
            f"Draw {', '.join(dict.fromkeys(script.removeprefix('plot_') for script, _ in drawn))}"
        shell:
            command("call")


RESULTS_NOTEBOOK = CLONE / "workflow/notebooks/results.ipynb"
# A cell tagged needs-<section> is left out where that was not computed.
COMPUTED = {
    "selection": CONFIG.selection,
    "stronger_attacks": CONFIG.stronger_attacks,
    "masking": CONFIG.masking,
    "curvature": CONFIG.curvature and DDN,
    "cost": CONFIG.cost,
    "path": CONFIG.path,
    "comparison": CONFIG.comparison,
}


rule run_notebook:
    input:
        **code("run_notebook", RESULTS_NOTEBOOK),
        notebook=project_file(RESULTS_NOTEBOOK),
        # What the notebook reads, where it is computed; it leaves out the sections of the rest.
        tables=[path for path in TABLES if path.endswith(".csv")],
        cost=COSTS,
        training=every_shown("training.json"),
        images=cells(f"{NETWORK}/images.parquet") if CONFIG.comparison else [],
        curvature=every_shown("curvature.parquet") if CONFIG.curvature else [],
        perturbations=every_shown("perturbations.parquet"),
    output:
        page=report(
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
        settings=lambda wildcards, input, output: text(
            {
                "parameters": {
                    "NAME": CONFIG.name,
                    "REPORT": str(Path(output.page).parent),
                    "RESULTS": results_folder(input),
                },
                "computed": [section for section, there in COMPUTED.items() if there],
            }
        ),
    message:
        "Run the notebook"
    shell:
        command("run_notebook")
