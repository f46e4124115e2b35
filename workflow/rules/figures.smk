# Every figure is an entry of the table below; a loop makes its rule. Then the notebook.

NOTEBOOK = f"{REPORT}/notebook.html"


DDN = attacked_by("ddn", "l2")
PGD = [norm for norm in ("linf", "l2") if attacked_by("pgd", norm)]
HEADLINE_TEXT = text({"headline": HEADLINE})

# figure: what it shows (its label in the HTML report), where it stands there, what its script reads, and
# what it depends on beside that. One with {dataset} or {norm} in its name is drawn for each of them.
# A label holds what a figure is about, and is left out where that is everything: of a label with two
# values, the report makes a switch, and breaks where one side of it is missing.
FIGURE_RULES = {
    "pareto": {
        "shows": "clean against robust accuracy",
        "category": "Robust accuracy",
        "input": {"cells": CELLS, "robustness": ROBUSTNESS},
        "settings": HEADLINE_TEXT,
    },
    "robustness_{dataset}": {
        "shows": "robust accuracy against epsilon",
        "category": "Robust accuracy",
        "input": {
            "robustness": ROBUSTNESS,
            "published": project_file(CLONE / "workflow/resources/published.csv"),
        },
    },
    "learning_curves_{dataset}": {
        "shows": "learning curves",
        "category": "Training",
        "input": {"curves": f"{REPORT}/tables/curves.csv"},
    },
}
if CONFIG.selection:
    FIGURE_RULES["headline"] = {
        "shows": "robust accuracy at the selected lam",
        "category": "Robust accuracy",
        "input": {"robustness": ROBUSTNESS, "selection": SELECTION},
        "params": {
            "reference": CONFIG.comparison.reference if CONFIG.comparison else ""
        },
    }
    FIGURE_RULES["autoattack"] = {
        "shows": "what each attack overlooks",
        "category": "Robust accuracy",
        "input": {"table": f"{REPORT}/tables/autoattack.csv"},
    }
if CONFIG.cost:
    FIGURE_RULES["cost"] = {
        "shows": "cost of a training step",
        "category": "Training",
        "input": {"cost": COSTS},
    }
if CONFIG.cost and CONFIG.selection:
    FIGURE_RULES["tradeoff"] = {
        "shows": "robust accuracy against training cost",
        "category": "Robust accuracy",
        "input": {
            "selection": SELECTION,
            "cells": CELLS,
            "robustness": ROBUSTNESS,
            "cost": COSTS,
        },
        "settings": HEADLINE_TEXT,
    }
if CONFIG.masking:
    FIGURE_RULES["masking"] = {
        "shows": "gradient masking checks",
        "category": "Robust accuracy",
        "input": {"masking": f"{REPORT}/tables/masking.csv"},
    }
if CONFIG.curvature:
    FIGURE_RULES["curvature_{dataset}"] = {
        "shows": "gradient and Hessian norms of test images",
        "category": "Curvature",
        "input": {"curvature": CURVATURE},
    }
    FIGURE_RULES["loss_surface_{dataset}"] = {
        "shows": "loss around one test image",
        "category": "Curvature",
        "input": {
            "data": DATA,
            "models": of_dataset("model.safetensors"),
            "training": of_dataset("training.json"),
        },
        "params": {
            "images": CONFIG.curvature.images,
            "radii": lambda wildcards: HEADLINE[wildcards.dataset]["l2"],
        },
    }
if CONFIG.curvature and DDN:
    FIGURE_RULES["radius_{dataset}"] = {
        "shows": "predicted radius against the smallest perturbation",
        "category": "Curvature",
        "input": {
            "curvature": of_dataset("curvature.parquet"),
            "perturbations": of_dataset("perturbations.parquet"),
            "table": CURVATURE,
        },
    }
if CONFIG.recovery:
    FIGURE_RULES["recovery_{dataset}"] = {
        "shows": "what the estimators find of the norm",
        "category": "Curvature",
        "labels": {"regularizer": CONFIG.recovery.regularizer},
        "input": {"recovery": lambda wildcards: recoveries(wildcards.dataset)},
    }
if CONFIG.certificate:
    FIGURE_RULES["certificate_{dataset}"] = {
        "shows": "certified and attacked accuracy",
        "category": "Robust accuracy",
        "input": {
            "certificates": lambda wildcards: certificates(wildcards.dataset),
            "cells": CELLS,
        },
    }
if PGD:
    FIGURE_RULES["examples_{dataset}_{norm}"] = {
        "shows": "adversarial examples",
        "category": "Adversarial examples",
        "input": {
            "data": DATA,
            "examples": of_dataset("examples.safetensors"),
            "training": of_dataset("training.json"),
        },
    }
FIGURES = [
    f"{REPORT}/figures/{path}.{suffix}"
    for figure in FIGURE_RULES
    for path in expand(figure, dataset=CONFIG.datasets, norm=PGD)
    for suffix in ("png", "pdf")
]


for figure, entry in FIGURE_RULES.items():
    of = [name for name in ("dataset", "norm") if f"{{{name}}}" in figure]
    script = figure.partition("_{")[0]

    rule:
        name:
            f"plot_{script}"
        input:
            **code(f"plot_{script}"),
            **entry["input"],
        output:
            pdf=f"{REPORT}/figures/{figure}.pdf",
            png=report(
                f"{REPORT}/figures/{figure}.png",
                caption=f"../report/{script if script != 'autoattack' else 'autoattack_figure'}.rst",
                category=entry["category"],
                labels={"figure": entry["shows"]}
                | {name: f"{{{name}}}" for name in of}
                | entry.get("labels", {}),
            ),
        log:
            f"{LOGS}/plot_{script}/{figure}.log",
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            **entry.get("params", {}),  # for the captions
            arguments=arguments(f"plot_{script}", **entry.get("params", {})),
            settings=entry.get("settings", ""),
        message:
            f"Draw {', '.join([entry['shows'], *(f'{{wildcards.{name}}}' for name in of)])}"
        shell:
            LOOP_COMMAND


RESULTS_NOTEBOOK = CLONE / "workflow/notebooks/results.ipynb"
# A cell tagged needs-<section> is left out where that was not computed.
COMPUTED = {
    "selection": CONFIG.selection,
    "masking": CONFIG.masking,
    "curvature": CONFIG.curvature and DDN,
    "cost": CONFIG.cost,
    "comparison": CONFIG.comparison,
}


rule run_notebook:
    input:
        **code("run_notebook", RESULTS_NOTEBOOK),
        notebook=project_file(RESULTS_NOTEBOOK),
        # What the notebook reads, where it is computed; it leaves out the sections of the rest.
        tables=[path for path in TABLES if path.endswith(".csv")],
        cost=COSTS,
        data=expand(DATA, dataset=CONFIG.datasets),
        models=every_shown("model.safetensors"),
        training=every_shown("training.json"),
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
                    "DATA": str(Path(input.data[0]).parent),
                },
                "computed": [section for section, there in COMPUTED.items() if there],
            }
        ),
    message:
        "Run the notebook"
    shell:
        command("run_notebook")
