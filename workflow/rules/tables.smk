# Every table of the report is an output of one of the rules that the loop below makes.

CELLS = f"{REPORT}/tables/cells.csv"
ROBUSTNESS = f"{REPORT}/tables/robustness.csv"
CURVATURE = f"{REPORT}/tables/curvature.csv"
COMPARISON = f"{REPORT}/tables/comparison.csv"
SELECTION = f"{RESULTS}/selection.csv"
COST = f"{RESULTS}/cost/{{dataset}}.csv"
PROVENANCE = [f"{REPORT}/provenance.json", f"{REPORT}/provenance.md"]

TRAINING = cells(f"{NETWORK}/training.json")
IMAGES = cells(f"{NETWORK}/images.parquet")
COSTS = expand(COST, dataset=CONFIG.datasets) if CONFIG.cost else []
CONTROLS = (
    expand(f"{CONTROL}/masking.json", dataset=CONFIG.datasets) if CONFIG.masking else []
)
FURTHER = (
    cells(f"{RESULTS}/{SELECTED}/images.parquet", each=["seed"])
    if CONFIG.selection
    else []
)


# rule: what its script reads, the tables that it writes, what it depends on beside these
TABLE_RULES = {
    "collect": {
        "title": "Collect all cells into tables",
        "input": {
            "training": TRAINING,
            "evaluation": cells(f"{NETWORK}/evaluation.json"),
            "curve": cells(f"{NETWORK}/curve.csv"),
            "images": IMAGES,
            "selected": FURTHER,
        },
        "output": {
            "cells": "cells.csv",
            "robustness": "robustness.csv",
            "curves": "curves.csv",
        },
        "settings": with_grid(),
    },
    "summarize": {
        "title": "Summarize over seeds",
        "input": {"cells": CELLS, "robustness": ROBUSTNESS},
        "output": {"csv": "summary.csv", "markdown": "summary.md"},
        "settings": text({"headline": HEADLINE}),
    },
}
if CONFIG.curvature:
    TABLE_RULES["collect_curvature"] = {
        "title": "Collect the curvature of all cells",
        "input": {
            "curvature": cells(f"{NETWORK}/curvature.parquet"),
            "perturbations": cells(f"{NETWORK}/perturbations.parquet"),
        },
        "output": {"csv": "curvature.csv"},
        "settings": with_grid(),
    }
if CONFIG.masking:
    TABLE_RULES["collect_masking"] = {
        "title": "Collect the masking checks",
        "input": {
            "cells": cells(f"{NETWORK}/masking.json"),
            "controls": CONTROLS,
        },
        "output": {"csv": "masking.csv"},
        "settings": with_grid(),
    }
if CONFIG.selection:
    TABLE_RULES["tabulate_attacks"] = {
        "title": "Tabulate the selected cells, attack by attack",
        "input": {"robustness": ROBUSTNESS, "selection": SELECTION},
        "output": {"csv": "autoattack.csv", "markdown": "autoattack.md"},
        "settings": text({"headline": HEADLINE}),
    }
if CONFIG.comparison:
    TABLE_RULES["compare"] = {
        "title": "Compare the penalties image by image",
        "input": {"selection": SELECTION, "cells": CELLS, "images": IMAGES},
        "output": {"csv": "comparison.csv", "markdown": "comparison.md"},
        "settings": with_grid(headline=HEADLINE, reference=CONFIG.comparison.reference),
    }
TABLE_RULES["judge_claims"] = {
    "title": "Judge the paper's claims",
    "input": {
        "cells": CELLS,
        "cost": COSTS,
        "curvature": [CURVATURE] if CONFIG.curvature else [],
        "comparison": [COMPARISON] if CONFIG.comparison else [],
    },
    "output": {"csv": "claims.csv", "markdown": "claims.md"},
    "settings": text(
        {
            "penalties": {
                name: entry.penalty for name, entry in CONFIG.regularizers.items()
            }
        }
    ),
}
TABLES = [
    f"{REPORT}/tables/{file}"
    for entry in TABLE_RULES.values()
    for file in entry["output"].values()
]

# Tables that the HTML report shows: caption (in workflow/report) and label.
REPORTED = {
    file: report(
        f"{REPORT}/tables/{file}",
        caption=f"../report/{caption}.rst",
        category="Tables",
        labels={"table": label},
    )
    for file, caption, label in [
        ("cells.csv", "cells", "cells"),
        ("robustness.csv", "robustness_table", "robust accuracy"),
        ("curvature.csv", "curvature_table", "curvature and predicted radius"),
        ("masking.csv", "masking_table", "masking checks"),
        ("summary.csv", "summary", "summary"),
        ("autoattack.csv", "autoattack", "selected cells, attack by attack"),
        ("comparison.csv", "comparison", "comparison at matched clean accuracy"),
        ("claims.csv", "claims", "the paper's claims"),
    ]
}


for name, entry in TABLE_RULES.items():

    rule:
        name:
            name
        input:
            **code(name),
            **entry["input"],
        output:
            **{
                key: REPORTED.get(file, f"{REPORT}/tables/{file}")
                for key, file in entry["output"].items()
            },
        log:
            f"{LOGS}/{name}.log",
        localrule: True
        conda:
            "../../envs/pipeline.yaml"
        params:
            arguments=arguments(name),
            settings=entry["settings"],
        message:
            entry["title"]
        shell:
            LOOP_COMMAND


# After all else that is not drawn. Of the figures it says only which there are: a figure that is redrawn
# changes no number.
rule write_provenance:
    input:
        **code("write_provenance"),
        data=expand(DATA, dataset=CONFIG.datasets),
        training=TRAINING,
        evaluation=cells(f"{NETWORK}/evaluation.json"),
        tables=TABLES,
        selected=FURTHER,
        controls=CONTROLS,
        certificates=[path for name in CONFIG.datasets for path in certificates(name)],
        recovery=[path for name in CONFIG.datasets for path in recoveries(name)],
    output:
        record=PROVENANCE[0],
        markdown=PROVENANCE[1],
    log:
        f"{LOGS}/write_provenance.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        settings=lambda wildcards, input: text(
            {
                "config": CONFIG.result_settings(),
                "grid": grid(input),
                "figures": sorted({Path(path).stem for path in FIGURES}),
            }
        ),
    message:
        "Write down where the results come from"
    shell:
        command("write_provenance")
