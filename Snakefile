# Input Hessian regularization: data -> train a cell -> attack it -> collect -> draw.
# A cell is one (dataset, regularizer, lam, seed).

from snakemake.utils import min_version

min_version("9.20")


# A config given on the command line replaces config.yaml as a whole: a key that it leaves out is an
# error, never silently taken from the full experiment.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


# Locally, a profile says how many GPUs there are; on a cluster, every job asks for its own.
resource_scopes:
    gpu="local",


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/attack.smk"
include: "workflow/rules/masking.smk"
include: "workflow/rules/collect.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/curvature.smk"
include: "workflow/rules/notebook.smk"


report: "workflow/report/workflow.rst"


rule all:
    default_target: True
    input:
        FIGURES,
        TABLES,
        NOTEBOOK,


onsuccess:
    print(
        f"Figures:  {REPORT}/figures\n"
        f"Tables:   {REPORT}/tables\n"
        f"Notebook: {NOTEBOOK}"
    )
