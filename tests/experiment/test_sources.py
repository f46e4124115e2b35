"""What a script depends on, against what Python really imports."""

import subprocess
import sys
from pathlib import Path

import pytest

from input_hessian.experiment.sources import ROOT, parameters, source_files

SCRIPTS = sorted((Path(__file__).parents[2] / "workflow/scripts").glob("*.py"))


@pytest.mark.parametrize("script", ["plot_pareto.py", "check_masking.py"], ids=lambda name: name)
def test_the_files_are_those_that_python_imports(script):
    """In a fresh interpreter; what is imported only inside functions may come on top."""
    path = SCRIPTS[0].with_name(script)
    listing = (
        "import runpy, sys\n"
        "sys.argv = ['script']\n"
        f"runpy.run_path({str(path)!r}, run_name='imported')\n"
        f"root = {str(ROOT)!r}\n"
        "files = {getattr(m, '__file__', None) or '' for m in sys.modules.values()}\n"
        "print(*sorted(f for f in files if f.startswith(root)), sep='\\n')\n"
    )
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", listing], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    imported = {Path(line) for line in done.stdout.split()}
    assert len(imported) > 3
    assert imported <= set(source_files(path))


def test_training_depends_on_no_single_penalty_model_or_dataset():
    for script in ("train.py", "attack.py"):
        names = {f"{p.parent.name}/{p.name}" for p in source_files(SCRIPTS[0].with_name(script))}
        plugins = {
            f"{p.parent.name}/{p.name}"
            for folder in ("penalties", "experiment/models", "experiment/datasets")
            for p in (ROOT / "input_hessian" / folder).glob("[!_]*.py")
        }
        assert plugins
        assert not names & plugins


def test_data_and_attacks_depend_on_no_penalty_at_all():
    for script in ("prepare_dataset.py", "attack.py", "check_masking.py"):
        files = source_files(SCRIPTS[0].with_name(script))
        assert not any(file.parent.name == "penalties" for file in files)


def test_figures_depend_on_no_torch_code():
    for script in SCRIPTS:
        if script.name in ("plot_pareto.py", "plot_cost.py", "summarize.py"):
            files = {p.name for p in source_files(script)}
            assert "tables.py" in files
            assert not files & {"hessian.py", "estimators.py", "layerwise.py", "training.py"}


def test_chains_packages_and_imports_inside_functions_count(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from input_hessian.estimators import operator_norm\n")
    files = {str(p.relative_to(ROOT)) for p in source_files(script) if p != script}
    assert files == {
        f"input_hessian/{name}.py"
        for name in ("__init__", "estimators", "hessian", "layerwise", "vectors")
    }


def test_what_only_type_checkers_read_does_not_count(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from input_hessian.estimators import operator_norm\n"
        "else:\n    from input_hessian.vectors import vector_norm\n"
    )
    files = {path.name for path in source_files(script) if path != script}
    assert files == {"__init__.py", "vectors.py"}


def test_every_script_has_parameters_that_the_workflow_understands():
    known = {"Input", "list[Input]", "Output", "Settings", "Untracked", "str", "int", "float"}
    known |= {"list[float]", "list[str]", "Output | None", "list[Output]"}
    assert len(SCRIPTS) > 25
    for script in SCRIPTS:
        found = parameters(script)
        assert found, script.name
        assert set(found.values()) <= known, script.name
        # call.py calls others, which have them.
        writes = {"Output", "list[Output]"} & set(found.values())
        assert bool(writes) == (script.name != "call.py"), script.name


def test_a_script_depends_on_the_scripts_that_it_imports():
    found = {path.name for path in source_files(SCRIPTS[0].with_name("evaluate_control.py"))}
    assert {"mask_gradients.py", "evaluate.py", "attack.py", "validate.py", "masking.py"} <= found
