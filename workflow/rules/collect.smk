TABLES = [
    f"{REPORT}/tables/{name}"
    for name in (
        "cells.csv",
        "robustness.csv",
        "curves.csv",
        "masking.csv",
        "curvature.csv",
        "summary.csv",
        "summary.md",
        "autoattack.csv",
        "autoattack.md",
        "comparison.csv",
        "comparison.md",
        "claims.csv",
        "claims.md",
    )
]
PROVENANCE = [f"{REPORT}/provenance.json", f"{REPORT}/provenance.md"]


rule collect:
    input:
        script="workflow/scripts/collect.py",
        grid="workflow/scripts/grid.py",
        library=modules("collect"),
        training=cells(f"{RESULTS}/{CELL}/training.json"),
        evaluation=cells(f"{RESULTS}/{CELL}/evaluation.json"),
        curves=cells(f"{RESULTS}/{CELL}/curve.csv"),
        images=cells(f"{RESULTS}/{CELL}/images.parquet"),
        selected=selected_cells(f"{RESULTS}/{SELECTED}/images.parquet"),
    output:
        cells=report(
            f"{REPORT}/tables/cells.csv",
            caption="../report/cells.rst",
            category="Tables",
            labels={"table": "cells"},
        ),
        robustness=report(
            f"{REPORT}/tables/robustness.csv",
            caption="../report/robustness_table.rst",
            category="Tables",
            labels={"table": "robust accuracy"},
        ),
        curves=f"{REPORT}/tables/curves.csv",
    log:
        f"{LOGS}/collect.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        grid=grid_settings,
    message:
        "Collect all cells into tables"
    shell:
        "python {input.script} --grid {params.grid:q} "
        "--cells {output.cells} --robustness {output.robustness} --curves {output.curves} > {log} 2>&1"


rule summarize:
    input:
        script="workflow/scripts/summarize.py",
        text="workflow/scripts/table_text.py",
        library=modules("summarize"),
        cells=f"{REPORT}/tables/cells.csv",
        robustness=f"{REPORT}/tables/robustness.csv",
    output:
        csv=report(
            f"{REPORT}/tables/summary.csv",
            caption="../report/summary.rst",
            category="Tables",
            labels={"table": "summary"},
        ),
        markdown=f"{REPORT}/tables/summary.md",
    log:
        f"{LOGS}/summarize.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        headline=headline_settings,
    message:
        "Summarize over seeds"
    shell:
        "python {input.script} --cells {input.cells} --robustness {input.robustness} "
        "--headline {params.headline:q} --csv {output.csv} --markdown {output.markdown} "
        "> {log} 2>&1"


rule compare:
    input:
        script="workflow/scripts/compare.py",
        text="workflow/scripts/table_text.py",
        library=modules("compare"),
        selection=f"{RESULTS}/selection.csv",
        cells=f"{REPORT}/tables/cells.csv",
        images=cells(f"{RESULTS}/{CELL}/images.parquet"),
    output:
        csv=report(
            f"{REPORT}/tables/comparison.csv",
            caption="../report/comparison.rst",
            category="Tables",
            labels={"table": "comparison at matched clean accuracy"},
        ),
        markdown=f"{REPORT}/tables/comparison.md",
    log:
        f"{LOGS}/compare.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        settings=comparison_settings,
    message:
        "Compare the penalties image by image"
    shell:
        "python {input.script} --selection {input.selection} --cells {input.cells} "
        "--settings {params.settings:q} --csv {output.csv} --markdown {output.markdown} "
        "> {log} 2>&1"


rule tabulate_attacks:
    input:
        script="workflow/scripts/tabulate_attacks.py",
        text="workflow/scripts/table_text.py",
        library=modules("tabulate_attacks"),
        robustness=f"{REPORT}/tables/robustness.csv",
        selection=f"{RESULTS}/selection.csv",
    output:
        csv=report(
            f"{REPORT}/tables/autoattack.csv",
            caption="../report/autoattack.rst",
            category="Tables",
            labels={"table": "selected cells, attack by attack"},
        ),
        markdown=f"{REPORT}/tables/autoattack.md",
    log:
        f"{LOGS}/tabulate_attacks.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        headline=headline_settings,
    message:
        "Tabulate the selected cells, attack by attack"
    shell:
        "python {input.script} --robustness {input.robustness} --selection {input.selection} "
        "--headline {params.headline:q} --csv {output.csv} --markdown {output.markdown} "
        "> {log} 2>&1"


rule judge_claims:
    input:
        script="workflow/scripts/judge_claims.py",
        text="workflow/scripts/table_text.py",
        library=modules("judge_claims"),
        cells=f"{REPORT}/tables/cells.csv",
        cost=expand(f"{RESULTS}/cost/{{dataset}}.csv", dataset=DATASETS),
        curvature=f"{REPORT}/tables/curvature.csv",
        comparison=f"{REPORT}/tables/comparison.csv",
    output:
        csv=report(
            f"{REPORT}/tables/claims.csv",
            caption="../report/claims.rst",
            category="Tables",
            labels={"table": "the paper's claims"},
        ),
        markdown=f"{REPORT}/tables/claims.md",
    log:
        f"{LOGS}/judge_claims.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        penalties=penalty_settings,
    message:
        "Judge the paper's claims"
    shell:
        "python {input.script} --cells {input.cells} --cost {input.cost} "
        "--curvature {input.curvature} --comparison {input.comparison} "
        "--penalties {params.penalties:q} --csv {output.csv} --markdown {output.markdown} "
        "> {log} 2>&1"


# After all else that is not drawn. Of the figures it says only which there are: a figure that is redrawn
# changes no number.
rule write_provenance:
    input:
        script="workflow/scripts/write_provenance.py",
        grid="workflow/scripts/grid.py",
        library=modules("write_provenance"),
        data=expand("data/{dataset}.safetensors", dataset=DATASETS),
        training=cells(f"{RESULTS}/{CELL}/training.json"),
        evaluation=cells(f"{RESULTS}/{CELL}/evaluation.json"),
        tables=TABLES,
    output:
        json=f"{REPORT}/provenance.json",
        markdown=f"{REPORT}/provenance.md",
    log:
        f"{LOGS}/write_provenance.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        config=result_settings,
        grid=grid_settings,
        figures=lambda wildcards: sorted({Path(path).stem for path in FIGURES}),
    message:
        "Write down where the results come from"
    shell:
        "python {input.script} --config {params.config:q} --grid {params.grid:q} "
        "--figures {params.figures} --data {input.data} --tables {input.tables} "
        "--json {output.json} --markdown {output.markdown} > {log} 2>&1"
