# Input Hessian regularization: data -> train a cell -> attack it -> collect -> draw.
# A cell is one (dataset, regularizer, lam, seed).

from snakemake.utils import min_version

min_version("9.20")


# A config given on the command line replaces config.yaml as a whole: a key that it leaves out is an
# error, never silently taken from the full experiment.
if not workflow.overwrite_configfiles:

    configfile: "config.yaml"


# Locally, a profile says how many GPUs there are; on a cluster, every job asks for its own. Rules that
# share a cluster job run in turn (the cluster profiles give each of them one `in_turn`), so that its
# memory is that of one rule.
resource_scopes:
    gpu="local",
    in_turn="local",


# Snakemake does not pass the profile's limit on to its jobs.
if workflow.remote_exec:
    workflow.register_resource("in_turn", 1)


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
        PROVENANCE,
    message:
        "All figures and tables are there"


onsuccess:
    print(
        f"Figures:  {REPORT}/figures\n"
        f"Tables:   {REPORT}/tables (summary.md first)\n"
        f"Notebook: {NOTEBOOK}\n"
        f"Origin:   {REPORT}/provenance.md\n"
        "As one page, captions included: the same command with --report report.html"
    )


onerror:
    failed = re.findall(
        r"^ *log: (\S+) \(check log",
        "".join(Path(path).read_text() for path in log),
        re.MULTILINE,
    )
    print(
        "\n".join(
            [
                f"Not everything was computed. Logs of failed jobs, in {LOGS}:",
                *(f"  {path}" for path in sorted(set(failed))),
                "The same command goes on from here: what is finished is kept.",
            ]
        )
    )
