# The workflow itself is workflow/Snakefile; from here, plain `snakemake` finds it.
include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
    message:
        "All figures and tables are there"
