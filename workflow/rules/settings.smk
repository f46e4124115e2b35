# Which cells there are, and what the scripts are told about them: the params of the rules.

# Every job has its settings written when it is planned: libyaml does so in a quarter of the time.
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def text(settings):
    """Settings as a script reads them from its standard input."""
    return yaml.dump(settings, Dumper=DUMPER, sort_keys=False, width=100).strip()


def cells(pattern, dataset=None, seed=None):
    """Paths of a pattern for every cell, or for those of one dataset and seed."""
    return [
        pattern.format(dataset=here, regularizer=name, lam=lam, seed=number)
        for here in ([dataset] if dataset else CONFIG.datasets)
        for name in CONFIG.evaluated_on(here)
        for lam in CONFIG.lam_texts(name, here)
        for number in CONFIG.seeds_of(name)
        if seed in (None, number)
    ]


def shown(filename, dataset):
    """This file of one cell per regularizer of a dataset: the middle lam, the first seed."""
    lams = {
        name: list(CONFIG.lam_texts(name, dataset))
        for name in CONFIG.evaluated_on(dataset)
    }
    return [
        f"{RESULTS}/{CELL}/{filename}".format(
            dataset=dataset,
            regularizer=name,
            lam=texts[len(texts) // 2],
            seed=SEED,
        )
        for name, texts in lams.items()
    ]


def recoveries(dataset):
    """What the estimators find on a dataset: a file per training that it is measured in."""
    return [
        f"{RESULTS}/recovery/{dataset}/{CONFIG.recovery.regularizer}/lam~{lam:g}.csv"
        for lam in (CONFIG.recovery.lam if CONFIG.recovery else [])
    ]


def certificates(dataset):
    """Certified radii on a dataset: a file per network."""
    entries = CONFIG.certificate.regularizers if CONFIG.certificate else []
    return [
        f"{CERTIFIABLE}/certificate.parquet".format(
            dataset=dataset, regularizer=entry.name, lam=f"{entry.lam:g}", seed=seed
        )
        for entry in entries
        for seed in CONFIG.seeds
    ]


def identity(wildcards):
    """A cell, its lam and seed as numbers."""
    return {
        "dataset": wildcards.dataset,
        "regularizer": wildcards.regularizer,
        "lam": CONFIG.lam(wildcards.regularizer, wildcards.lam),
        "seed": int(wildcards.get("seed", SEED)),
    }


def results_folder(files):
    """The folder below which all cells are: known from their files, as a `module` may prefix it."""
    first = os.sep + cells(CELL)[0]
    return next(path.partition(first)[0] for path in files if first in path)


def grid(files):
    """The cells to collect and the folder that holds them: a list of all files may be too long."""
    return {
        "results": results_folder(files),
        "datasets": {
            dataset: {
                name: list(CONFIG.lam_texts(name, dataset))
                for name in CONFIG.evaluated_on(dataset)
            }
            for dataset in CONFIG.datasets
        },
        "seeds": CONFIG.seeds,
    } | ({"networks": list(CONFIG.networks)} if CONFIG.networks else {})


def training_settings(wildcards):
    """All that a cell's training depends on beside code and data."""
    cell = identity(wildcards)
    return {
        "cell": cell,
        "model": CONFIG.model,
        "penalty": CONFIG.penalty(wildcards.regularizer, cell["lam"]),
        "training": CONFIG.training_of(wildcards.regularizer),
    }


def network_settings(wildcards):
    """All that the import of a network of the user's own depends on beside code, data and checkpoint."""
    entry = CONFIG.networks[wildcards.regularizer]
    return {
        "cell": identity(wildcards),
        "network": {"architecture": entry.architecture, "options": entry.options},
    }


def evaluation_settings(cell, **attack):
    """All that a cell's evaluation depends on beside the trained network, part by part."""
    headline = HEADLINE[cell["dataset"]]
    settings = {
        "attack": {
            "images": CONFIG.evaluation.images,
            "epsilons": EPSILONS[cell["dataset"]],
            "headline": headline,
            "attacks": CONFIG.attacks,
        }
        | attack
    }
    if CONFIG.masking:
        settings["masking"] = {
            "images": CONFIG.masking.images,
            "queries": CONFIG.masking.queries,
            "headline": headline,
            "attacks": CONFIG.attacks,
        }
    if CONFIG.curvature:
        settings["curvature"] = {"images": CONFIG.curvature.images}
    if CONFIG.path:
        ddn = next(attack for attack in CONFIG.attacks if attack["attack"] == "ddn")
        settings["path"] = CONFIG.path.model_dump() | {"steps": ddn["steps"]}
    if CONFIG.selection:
        settings["validation"] = {
            "images": CONFIG.selection.images,
            "epsilons": EPSILONS[cell["dataset"]],
        }
    return {part: {"cell": cell} | values for part, values in settings.items()}


def control(dataset):
    """The masked control, as if it were a cell."""
    return {"dataset": dataset, "regularizer": "control", "lam": 0.0, "seed": SEED}


def first_seed(filename):
    """Input function: this file of all cells of a dataset, first seed."""
    return lambda wildcards: cells(f"{NETWORK}/{filename}", wildcards.dataset, SEED)


def given_away(dataset):
    """Regularizers whose networks are for others: with a comparison, one of each family and the reference."""
    trained = CONFIG.trained_on(dataset)
    if not CONFIG.comparison:
        return trained
    families = CONFIG.comparison.families.values()
    first = [[name for name in names if name in trained][:1] for names in families]
    return ["none", CONFIG.comparison.reference, *sum(first, [])]


def with_grid(**settings):
    """Settings of a script that reads all cells, given the inputs of the rule."""
    return lambda input: {"grid": grid(input)} | settings


def attacked_by(attack, norm):
    """Whether every cell is attacked by this attack with this norm."""
    return any(
        entry["attack"] == attack and entry["norm"] == norm for entry in CONFIG.attacks
    )


def every_shown(filename):
    """This file of the shown cells of all datasets."""
    return [path for dataset in CONFIG.datasets for path in shown(filename, dataset)]


def drawings(figure, entry):
    """The figures of an entry: label, script, what it reads and writes, for each dataset and norm."""
    script = figure.partition("_{")[0]
    for dataset in CONFIG.datasets if "{dataset}" in figure else [None]:
        for norm in PGD if "{norm}" in figure else [None]:
            of = {"dataset": dataset, "norm": norm}
            of = {name: value for name, value in of.items() if value}

            def filled(values):
                return {
                    name: value(dataset) if callable(value) else value
                    for name, value in values.items()
                }

            path = f"{REPORT}/figures/{figure.format(**of)}"
            yield script, {
                "input": filled(entry["input"]),
                "output": {"pdf": f"{path}.pdf", "png": f"{path}.png"},
                "params": of | filled(entry.get("params", {})),
                "settings": entry.get("settings", {}),
                "report": {
                    "caption": f"../report/{script if script != 'autoattack' else 'autoattack_figure'}.rst",
                    "category": entry["category"],
                    "labels": {"figure": entry["shows"]} | of | entry.get("labels", {}),
                },
            }


def tables_to_read(name):
    """Outputs of a script: a table as CSV, as Markdown and as LaTeX."""
    kinds = {"csv": "csv", "markdown": "md", "latex": "tex"}
    return {kind: f"{TABLE}/{name}.{ending}" for kind, ending in kinds.items()}


def project_files():
    """Files of the project that the deposit holds: what Git tracks, in a checkout."""
    command = ["git", "-C", str(CLONE), "ls-files", *PROJECT_FOLDERS]
    listed = subprocess.run(command, capture_output=True, text=True)
    below = [CLONE / line for line in listed.stdout.splitlines()]
    if listed.returncode:  # an unpacked deposit
        below = [
            path for folder in PROJECT_FOLDERS for path in (CLONE / folder).rglob("*")
        ]
    kept = [
        path
        for path in sorted(below)
        if path.is_file()
        and not any(
            part.startswith((".", "__pycache__"))
            for part in path.relative_to(CLONE).parts
        )
    ]
    return [project_file(path) for path in [CLONE / name for name in PROJECT] + kept]


def own_files():
    """Files of the user's own that the configuration names, and what they import."""
    penalties = [("penalty", entry.penalty) for entry in CONFIG.regularizers.values()]
    models = [CONFIG.model, *([CONFIG.certificate.model] if CONFIG.certificate else [])]
    architectures = [("architecture", model["architecture"]) for model in models]
    data = [("dataset", CONFIG.dataset_file(name)) for name in CONFIG.datasets]
    networks = CONFIG.networks.values()
    architectures += [("architecture", entry.architecture) for entry in networks]
    named = [of for of in [*penalties, *architectures, *data] if of[1].endswith(".py")]
    checkpoints = {project_file(entry.checkpoint) for entry in networks}
    return sorted({file for of in named for file in plugin(*of)} | checkpoints)
