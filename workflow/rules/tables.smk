# Every table of the report is an output of one of the rules that the loop below makes.

TABLE = f"{REPORT}/tables"
CELLS = f"{TABLE}/cells.csv"
ROBUSTNESS = f"{TABLE}/robustness.csv"
GROUPS = f"{TABLE}/groups.csv"
CURVATURE = f"{TABLE}/curvature.csv"
PATH = f"{TABLE}/path.csv"
COMPARISON = f"{TABLE}/comparison.csv"
MATCHED = f"{TABLE}/matched.csv"
SELECTION = f"{RESULTS}/selection.csv"
COST = f"{RESULTS}/cost/{{dataset}}.csv"
PROVENANCE = [f"{REPORT}/provenance.json", f"{REPORT}/provenance.md"]

TRAINING = cells(f"{NETWORK}/training.json")
COSTS = expand(COST, dataset=CONFIG.datasets) if CONFIG.cost else []
CONTROLS = (
    expand(f"{CONTROL}/masking.json", dataset=CONFIG.datasets) if CONFIG.masking else []
)
CERTIFICATES = [path for name in CONFIG.datasets for path in certificates(name)]
STRONGER_ATTACKS = (
    expand(f"{STRONGER}.parquet", dataset=CONFIG.datasets)
    if CONFIG.stronger_attacks
    else []
)


# script: what it reads, the tables that it writes, what it depends on beside these; in this order, one
# job calls them all
TABLE_SCRIPTS = {
    "collect": {
        "input": {
            "training": TRAINING,
            "evaluation": cells(f"{NETWORK}/evaluation.json"),
            "curve": cells(f"{NETWORK}/curve.csv"),
            "images": cells(f"{NETWORK}/images.parquet"),
        },
        "output": {
            "cells": f"{TABLE}/cells.csv",
            "robustness": f"{TABLE}/robustness.csv",
            "groups": f"{TABLE}/groups.csv",
            "curves": f"{TABLE}/curves.csv",
        },
        "settings": with_grid(),
    },
    "summarize": {
        "input": {"cells": CELLS, "groups": GROUPS},
        "output": tables_to_read("summary"),
        "settings": {"headline": HEADLINE},
    },
}
if CONFIG.curvature:
    TABLE_SCRIPTS["collect_curvature"] = {
        "input": {
            "curvature": cells(f"{NETWORK}/curvature.parquet"),
            "perturbations": cells(f"{NETWORK}/perturbations.parquet"),
        },
        "output": {"csv": f"{TABLE}/curvature.csv"},
        "settings": with_grid(),
    }
if CONFIG.path:
    TABLE_SCRIPTS["collect_path"] = {
        "input": {"path": cells(f"{NETWORK}/path.parquet")},
        "output": {"csv": PATH},
        "settings": with_grid(),
    }
if CONFIG.masking:
    TABLE_SCRIPTS["collect_masking"] = {
        "input": {
            "cells": cells(f"{NETWORK}/masking.json"),
            "controls": CONTROLS,
        },
        "output": {"csv": f"{TABLE}/masking.csv"},
        "settings": with_grid(),
    }
if CONFIG.selection:
    TABLE_SCRIPTS["tabulate_attacks"] = {
        "input": {"groups": GROUPS, "selection": SELECTION},
        "output": tables_to_read("autoattack"),
        "settings": {"headline": HEADLINE},
    }
if CONFIG.stronger_attacks:
    TABLE_SCRIPTS["tabulate_stronger_attacks"] = {
        "input": {
            "images": STRONGER_ATTACKS,
            "transfer": expand(f"{STRONGER}.transfer.csv", dataset=CONFIG.datasets),
        },
        "output": {
            "csv": f"{TABLE}/stronger_attacks.csv",
            "matrix": f"{TABLE}/transfer.csv",
            "markdown": f"{TABLE}/stronger_attacks.md",
            "latex": f"{TABLE}/stronger_attacks.tex",
        },
    }
if CONFIG.certificate:
    TABLE_SCRIPTS["tabulate_certificates"] = {
        "input": {"certificates": CERTIFICATES},
        "output": tables_to_read("certificate"),
        "settings": {
            "epsilons": {name: radii["l2"] for name, radii in EPSILONS.items()}
        },
    }
if CONFIG.comparison:
    TABLE_SCRIPTS["compare"] = {
        "input": {
            "selection": SELECTION,
            "cells": CELLS,
            "masking": [f"{TABLE}/masking.csv"] if CONFIG.masking else [],
            "images": cells(f"{NETWORK}/images.parquet"),
            "perturbations": cells(f"{NETWORK}/perturbations.parquet"),
        },
        "output": {
            "matched": MATCHED,
            "sensitivity": f"{TABLE}/sensitivity.csv",
        }
        | tables_to_read("comparison"),
        "settings": with_grid(
            epsilons=EPSILONS,
            max_clean_loss=MAX_CLEAN_LOSS,
            **CONFIG.comparison.model_dump(exclude_none=True),
        ),
    }
TABLE_SCRIPTS["judge_claims"] = {
    "input": {
        "cells": CELLS,
        "cost": COSTS,
        "groups": GROUPS,
        "curvature": [CURVATURE] if CONFIG.curvature else [],
        "path": [PATH] if CONFIG.path else [],
        "comparison": [COMPARISON] if CONFIG.comparison else [],
    },
    "output": {"csv": f"{TABLE}/claims.csv", "markdown": f"{TABLE}/claims.md"},
    "settings": {
        "epsilons": EPSILONS,
        "penalties": {
            name: entry.penalty for name, entry in CONFIG.regularizers.items()
        },
    },
}
TABLES = [file for entry in TABLE_SCRIPTS.values() for file in entry["output"].values()]

# Tables that the HTML report shows: caption (in workflow/report) and label.
REPORTED = {
    f"{TABLE}/{file}": report(
        f"{TABLE}/{file}",
        caption=f"../report/{caption}.rst",
        category="Tables",
        labels={"table": label},
    )
    for file, caption, label in [
        ("cells.csv", "cells", "cells"),
        ("robustness.csv", "robustness_table", "robust accuracy"),
        ("curvature.csv", "curvature_table", "curvature and predicted radius"),
        ("path.csv", "path_table", "loss and margin along the path of an attack"),
        ("masking.csv", "masking_table", "masking checks"),
        ("summary.csv", "summary", "summary"),
        ("autoattack.csv", "autoattack", "selected cells, attack by attack"),
        ("stronger_attacks.csv", "stronger_attacks", "stronger attacks"),
        ("certificate.csv", "certificate_table", "certified accuracy"),
        (
            "comparison.csv",
            "comparison",
            "comparison at a limited loss of clean accuracy",
        ),
        (
            "matched.csv",
            "matched",
            "robust accuracy at a limited loss of clean accuracy",
        ),
        ("claims.csv", "claims", "the paper's claims"),
    ]
}


TABULATED, TABULATE = together(list(TABLE_SCRIPTS.items()))


rule tabulate:
    input:
        **TABULATED,
    output:
        [REPORTED.get(file, file) for file in TABLES],
    log:
        f"{LOGS}/tabulate.log",
    localrule: True
    conda:
        "../../envs/pipeline.yaml"
    params:
        settings=TABULATE,
    message:
        "Collect all cells into tables"
    shell:
        command("call")


# After all else that is not drawn. Of the figures it says only which there are: a figure that is redrawn
# changes no number.
rule write_provenance:
    input:
        **code("write_provenance"),
        data=expand(DATA, dataset=CONFIG.datasets),
        training=TRAINING,
        evaluation=cells(f"{NETWORK}/evaluation.json"),
        tables=TABLES,
        stronger=STRONGER_ATTACKS,
        controls=CONTROLS,
        certificates=CERTIFICATES,
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
