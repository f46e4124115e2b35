# What all rules share: the configuration, the paths, and the shell line that calls a script.

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import yaml
from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod
from snakemake.utils import update_config

CLONE = Path(workflow.current_basedir).parents[1]
sys.path.insert(0, str(CLONE / "src"))

from input_hessian.experiment import config_files
from input_hessian.experiment.config import read_config
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.plugins import plugin_file
from input_hessian.experiment.sources import parameters, source_files

try:
    # A module has its configuration from another workflow, whose files and command line are not ours.
    if not workflow.modifier.skip_configfile:
        texts = {file: Path(file).read_text("utf-8") for file in workflow.configfiles}
        config_files.check(texts)
        single = config_files.typed(workflow.config_settings.config)
        update_config(config, single)
        # Merged over config.yaml under the same name, another experiment would replace the full
        # one's results.
        given = [
            yaml.safe_load(texts[file]) or {} for file in workflow.overwrite_configfiles
        ]
        if given and "name" not in {*single, *(key for keys in given for key in keys)}:
            raise UserError(
                f"name: {workflow.overwrite_configfiles[-1]} does not set it, and results of "
                f"{config['name']} would be overwritten; add a line like `name: mine` to the file"
            )
    # Jobs on a cluster read the configuration again; that it is right is known by then.
    CONFIG = read_config(config, check_plugins=not workflow.remote_exec)
except UserError as error:
    raise WorkflowError(str(error)) from None

config.update(CONFIG.model_dump())  # with the defaults, for the captions of the report

RESULTS = f"results/{CONFIG.name}"
REPORT = f"reports/{CONFIG.name}"
LOGS = f"logs/{CONFIG.name}"
DATA = "data/{dataset}.safetensors"
CELL = "{dataset}/{regularizer}/lam~{lam}/seed~{seed}"
CELL_TEXT = "{wildcards.dataset}, {wildcards.regularizer}, lam {wildcards.lam}, seed {wildcards.seed}"
SEED = CONFIG.seeds[0]  # of whatever is computed for one seed only
# `auto` and what it stands for are one param, so that the one computes nothing anew after the other. A
# job on a cluster looks for itself what its node has.
DEVICE = CONFIG.device
if DEVICE == "auto" and not workflow.remote_exec:
    from input_hessian.experiment.devices import resolve_device  # imports torch

    DEVICE = resolve_device("auto").type
# One job at a time per GPU: profiles/default has one.
GPU = 1 if DEVICE == "cuda" else 0
HEADLINE = CONFIG.headline
EPSILONS = {
    name: entry.epsilons.model_dump() for name, entry in CONFIG.datasets.items()
}
MAX_CLEAN_LOSS = {name: entry.max_clean_loss for name, entry in CONFIG.datasets.items()}


def alternatives(texts):
    """Regular expression for exactly these texts."""
    return "|".join(sorted({re.escape(str(text)) for text in texts}))


wildcard_constraints:
    dataset=alternatives(CONFIG.datasets),
    regularizer=alternatives([*CONFIG.regularizers, *CONFIG.networks]),
    lam=alternatives(
        [
            *(
                text
                for dataset in CONFIG.datasets
                for name in CONFIG.regularizers
                for text in CONFIG.lam_texts(name, dataset)
            ),
            *(f"{lam:g}" for _, _, lams in CONFIG.side_lams for lam in lams),
        ]
    ),
    seed=alternatives(CONFIG.seeds),
    norm="linf|l2",


def job(minutes, gpu=GPU):
    """Resources of a rule: every further attempt gets as much memory and time again (`retries`)."""
    return {
        "mem_mb": lambda wildcards, attempt: 3000 * attempt,
        "runtime": lambda wildcards, attempt: minutes * attempt,
        "gpu": gpu,
    }


# A script is called by a shell command, with its code as input: Snakemake's own `script:` is compared
# by modification time, so that a fresh checkout or a touch would train everything again, and it does
# not know what a script imports. Inputs are compared by checksum.
def project_file(path):
    """A file of this project or of the user's, as seen from the working directory."""
    return local(os.path.relpath(path))


def code(script, *others):
    """Inputs of a rule: its script, and every file that this and others import."""
    path = script_file(script)
    library = [file for file in source_files(path, *others) if file != path.resolve()]
    # The style of the figures stands beside the module that applies it.
    library += [
        file.with_name("style.mplstyle")
        for file in library
        if file.name == "plotting.py"
    ]
    return {
        "script": project_file(path),
        "library": [project_file(file) for file in library],
    }


def script_file(name):
    """The file of a script."""
    return CLONE / "workflow/scripts" / f"{name}.py"


@cache
def plugin(kind, name):
    """Inputs of a rule: the file of a penalty, architecture or dataset, and what it imports."""
    return [project_file(file) for file in source_files(plugin_file(kind, name))]


def factory(architecture):
    """The same for what makes a network; an installed package or exported program is no code of ours."""
    if not architecture or ":" in architecture:
        return []
    return plugin("architecture", architecture)


# Jobs run by the interpreter of Snakemake, whatever `python` is first on the PATH, except in an
# environment that is made for them (--sdm conda). Its path is not part of the shell line: another one
# is no reason to repeat a job. (Lint takes os.environ[...] for a variable that the user has to set.)
os.environ.update(
    INPUT_HESSIAN_PYTHON=(
        "python"
        if DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method
        else sys.executable
    )
)
ENVIRONMENT = {
    # The scripts import the library of this checkout, also where it is not installed.
    "PYTHONPATH": shlex.quote(os.path.relpath(CLONE / "src")),
    "PYTHONUNBUFFERED": 1,
    "PYTHONUTF8": 1,
    # What a user may have set for Python and Matplotlib counts for his own work alone; empty is unset.
    **dict.fromkeys(
        ["PYTHONSTARTUP", "PYTHONINSPECT", "PYTHONOPTIMIZE", "PYTHONWARNINGS"], ""
    ),
    # Images for containers often set it; every job would then compile all of PyTorch's Python, 2 s.
    "PYTHONDONTWRITEBYTECODE": "",
    "MPLBACKEND": "agg",
    # float32 is float32, also on CPUs and GPUs with something faster.
    **dict.fromkeys(["ONEDNN_DEFAULT_FPMATH_MODE", "DNNL_DEFAULT_FPMATH_MODE"], ""),
    "NVIDIA_TF32_OVERRIDE": 0,
    # The allocator keeps its memory: by default, glibc gives every large tensor back to the kernel and
    # has it mapped and zeroed again at the next step, a third of a step's time on a CPU.
    "MALLOC_MMAP_THRESHOLD_": 4294967296,
    "MALLOC_TRIM_THRESHOLD_": 4294967296,
}
PYTHON = " ".join(
    [
        *(f"{name}={value}" for name, value in ENVIRONMENT.items()),
        '"$INPUT_HESSIAN_PYTHON"',
    ]
)
STDIN = " << 'SETTINGS'\n{params.settings}\nSETTINGS"


def signature(script):
    """Parameters of a script's function, and where each comes from; None is standard input."""
    kinds = {
        "Input": "input",
        "Output": "output",
        "Output | None": "output",
        "Untracked": "resources",
        "Settings": None,
    }
    found = parameters(script_file(script)).items()
    return {
        name: kinds.get(annotation.removeprefix("list[").removesuffix("]"), "params")
        for name, annotation in found
    }


def command(script, without=()):
    """Shell line that calls a script: every parameter of its function is what the rule names so."""
    of = signature(script)
    words = [
        "--threads {threads}" if name == "threads" else f"--{name} {{{kind}.{name}:q}}"
        for name, kind in of.items()
        if kind and name not in without
    ]
    line = " \\\n    ".join([f"{PYTHON} {{input.script:q}}", *words, "> {log:q} 2>&1"])
    return line + (STDIN if None in of.values() else "")


# What takes less time than the start of a process is one job: tables and figures are entries of a
# table, script: {"input", "output", "params", "settings"}, and a rule calls the scripts of several.
def together(entries):
    """Inputs, output files and params of a rule that calls the script of every entry, in order.

    An entry may read what one before it writes. Inputs are named <position>_<parameter>.
    """
    written = [path for _, entry in entries for path in entry["output"].values()]
    needed = {
        f"{i}_{name}": [path for path in listed(files) if path not in written]
        for i, (_, entry) in enumerate(entries)
        for name, files in entry["input"].items()
    }

    def calls(wildcards, input, output):
        # Not the paths of the entries: as a module, the rule has others.
        place = dict(zip(written, output, strict=True))
        called = []
        for i, (script, entry) in enumerate(entries):
            words = []
            for name, kind in signature(script).items():
                if kind == "input":
                    read = iter(listed(input.get(f"{i}_{name}", [])))
                    files = listed(entry["input"][name])
                    values = [place.get(path) or next(read) for path in files]
                elif kind == "output":
                    values = [place[entry["output"][name]]]
                else:
                    values = listed(entry["params"][name]) if kind else None
                if values is not None:
                    words += [f"--{name}", *map(str, values)]
            settings = entry.get("settings", {})
            settings = settings(input) if callable(settings) else settings
            called.append({"script": script, "words": words, "settings": settings})
        return text({"calls": called})

    scripts = [script_file(script) for script in dict.fromkeys(dict(entries))]
    return {**code("call", *scripts), **needed}, calls


def listed(values):
    """One value or several, as a list."""
    return [values] if isinstance(values, (str, int, float)) else list(values)


def files(folder, *names):
    """Inputs or outputs of a rule: files of a folder, each under its name without the ending."""
    return {name.partition(".")[0]: f"{folder}/{name}" for name in names}
