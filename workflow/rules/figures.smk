FIGURES = [
    f"{REPORT}/figures/headline.{{suffix}}",
    f"{REPORT}/figures/autoattack.{{suffix}}",
    *(f"{REPORT}/figures/robustness_{dataset}.{{suffix}}" for dataset in DATASETS),
    f"{REPORT}/figures/pareto.{{suffix}}",
    f"{REPORT}/figures/tradeoff.{{suffix}}",
    f"{REPORT}/figures/cost.{{suffix}}",
    f"{REPORT}/figures/masking.{{suffix}}",
    *(f"{REPORT}/figures/learning_curves_{dataset}.{{suffix}}" for dataset in DATASETS),
    *(
        f"{REPORT}/figures/examples_{dataset}_{norm}.{{suffix}}"
        for dataset in DATASETS
        for norm in ("linf", "l2")
    ),
    *(
        f"{REPORT}/figures/{name}_{dataset}.{{suffix}}"
        for name in ("loss_surface", "recovery", "curvature", "radius", "certificate")
        for dataset in DATASETS
    ),
]
FIGURES = [path.format(suffix=suffix) for path in FIGURES for suffix in ("png", "pdf")]


rule plot_headline:
    input:
        script="workflow/scripts/plot_headline.py",
        style=STYLE,
        library=modules("plot_headline"),
        robustness=f"{REPORT}/tables/robustness.csv",
        selection=f"{RESULTS}/selection.csv",
    output:
        pdf=f"{REPORT}/figures/headline.pdf",
        png=report(
            f"{REPORT}/figures/headline.png",
            caption="../report/headline.rst",
            category="Robust accuracy",
            labels={"figure": "selected weights against epsilon"},
        ),
    log:
        f"{LOGS}/plot_headline.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        reference=config["comparison"]["reference"],
    message:
        "Draw robust accuracy of the selected cells"
    shell:
        "python {input.script} --robustness {input.robustness} --selection {input.selection} "
        "--reference {params.reference} --output {output} > {log} 2>&1"


rule plot_autoattack:
    input:
        script="workflow/scripts/plot_autoattack.py",
        style=STYLE,
        library=modules("plot_autoattack"),
        table=f"{REPORT}/tables/autoattack.csv",
    output:
        pdf=f"{REPORT}/figures/autoattack.pdf",
        png=report(
            f"{REPORT}/figures/autoattack.png",
            caption="../report/autoattack_figure.rst",
            category="Robust accuracy",
            labels={"figure": "what each attack takes away"},
        ),
    log:
        f"{LOGS}/plot_autoattack.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw what each attack takes away"
    shell:
        "python {input.script} --table {input.table} --output {output} > {log} 2>&1"


# A label of a report holds what its figure is about, and is left out where that is everything: of a
# label with two values, the report makes a switch, and breaks where one side of it is missing.
rule plot_robustness:
    input:
        script="workflow/scripts/plot_robustness.py",
        style=STYLE,
        library=modules("plot_robustness"),
        robustness=f"{REPORT}/tables/robustness.csv",
        published="workflow/resources/published.csv",
    output:
        pdf=f"{REPORT}/figures/robustness_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/robustness_{{dataset}}.png",
            caption="../report/robustness.rst",
            category="Robust accuracy",
            labels={
                "figure": "robust accuracy against epsilon",
                "dataset": "{dataset}",
            },
        ),
    log:
        f"{LOGS}/plot_robustness/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw robust accuracy, {wildcards.dataset}"
    shell:
        "python {input.script} --robustness {input.robustness} --published {input.published} "
        "--dataset {wildcards.dataset} --output {output} > {log} 2>&1"


rule plot_pareto:
    input:
        script="workflow/scripts/plot_pareto.py",
        style=STYLE,
        library=modules("plot_pareto"),
        cells=f"{REPORT}/tables/cells.csv",
        robustness=f"{REPORT}/tables/robustness.csv",
    output:
        pdf=f"{REPORT}/figures/pareto.pdf",
        png=report(
            f"{REPORT}/figures/pareto.png",
            caption="../report/pareto.rst",
            category="Robust accuracy",
            labels={"figure": "clean against robust accuracy"},
        ),
    log:
        f"{LOGS}/plot_pareto.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        headline=headline_settings,
    message:
        "Draw clean against robust accuracy"
    shell:
        "python {input.script} --cells {input.cells} --robustness {input.robustness} "
        "--headline {params.headline:q} --output {output} > {log} 2>&1"


rule plot_tradeoff:
    input:
        script="workflow/scripts/plot_tradeoff.py",
        style=STYLE,
        library=modules("plot_tradeoff"),
        selection=f"{RESULTS}/selection.csv",
        cells=f"{REPORT}/tables/cells.csv",
        robustness=f"{REPORT}/tables/robustness.csv",
        cost=[f"{RESULTS}/cost/{dataset}.csv" for dataset in DATASETS],
    output:
        pdf=f"{REPORT}/figures/tradeoff.pdf",
        png=report(
            f"{REPORT}/figures/tradeoff.png",
            caption="../report/tradeoff.rst",
            category="Robust accuracy",
            labels={
                "figure": "robust accuracy against training cost",
            },
        ),
    log:
        f"{LOGS}/plot_tradeoff.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        headline=headline_settings,
    message:
        "Draw robust accuracy against training cost"
    shell:
        "python {input.script} --selection {input.selection} --cells {input.cells} "
        "--robustness {input.robustness} --cost {input.cost} --headline {params.headline:q} "
        "--output {output} > {log} 2>&1"


rule plot_cost:
    input:
        script="workflow/scripts/plot_cost.py",
        style=STYLE,
        library=modules("plot_cost"),
        cost=[f"{RESULTS}/cost/{dataset}.csv" for dataset in DATASETS],
    output:
        pdf=f"{REPORT}/figures/cost.pdf",
        png=report(
            f"{REPORT}/figures/cost.png",
            caption="../report/cost.rst",
            category="Training",
            labels={"figure": "cost of a training step"},
        ),
    log:
        f"{LOGS}/plot_cost.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw the cost of a training step"
    shell:
        "python {input.script} --cost {input.cost} --output {output} > {log} 2>&1"


rule plot_learning_curves:
    input:
        script="workflow/scripts/plot_learning_curves.py",
        style=STYLE,
        library=modules("plot_learning_curves"),
        curves=f"{REPORT}/tables/curves.csv",
    output:
        pdf=f"{REPORT}/figures/learning_curves_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/learning_curves_{{dataset}}.png",
            caption="../report/learning_curves.rst",
            category="Training",
            labels={"figure": "learning curves", "dataset": "{dataset}"},
        ),
    log:
        f"{LOGS}/plot_learning_curves/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw learning curves, {wildcards.dataset}"
    shell:
        "python {input.script} --curves {input.curves} --dataset {wildcards.dataset} "
        "--output {output} > {log} 2>&1"


rule plot_examples:
    input:
        script="workflow/scripts/plot_examples.py",
        style=STYLE,
        library=modules("plot_examples"),
        examples=shown_cells("examples.safetensors"),
    output:
        pdf=f"{REPORT}/figures/examples_{{dataset}}_{{norm}}.pdf",
        png=report(
            f"{REPORT}/figures/examples_{{dataset}}_{{norm}}.png",
            caption="../report/examples.rst",
            category="Adversarial examples",
            labels={
                "figure": "adversarial examples",
                "dataset": "{dataset}",
                "norm": "{norm}",
            },
        ),
    log:
        f"{LOGS}/plot_examples/{{dataset}}_{{norm}}.log",
    wildcard_constraints:
        norm="linf|l2",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    message:
        "Draw adversarial examples, {wildcards.dataset}, {wildcards.norm}"
    shell:
        "python {input.script} --dataset {wildcards.dataset} --norm {wildcards.norm} "
        "--examples {input.examples} --output {output} > {log} 2>&1"


rule plot_loss_surface:
    input:
        script="workflow/scripts/plot_loss_surface.py",
        style=STYLE,
        library=modules("plot_loss_surface"),
        data="data/{dataset}.safetensors",
        models=shown_cells("model.safetensors"),
        training=shown_cells("training.json"),
    output:
        pdf=f"{REPORT}/figures/loss_surface_{{dataset}}.pdf",
        png=report(
            f"{REPORT}/figures/loss_surface_{{dataset}}.png",
            caption="../report/loss_surface.rst",
            category="Curvature",
            labels={"figure": "loss around one test image", "dataset": "{dataset}"},
        ),
    log:
        f"{LOGS}/plot_loss_surface/{{dataset}}.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        images=EVALUATION["images"],
        radii=lambda wildcards: json.dumps(
            DATASETS[wildcards.dataset]["headline"]["l2"]
        ),
    message:
        "Draw the loss around one image, {wildcards.dataset}"
    shell:
        "python {input.script} --models {input.models} --data {input.data} "
        "--dataset {wildcards.dataset} --images {params.images} --radii {params.radii:q} "
        "--output {output} > {log} 2>&1"
