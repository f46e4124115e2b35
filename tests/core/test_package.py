"""The method as a package: public names, and what it needs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.repository import ROOT

import input_hessian

CORE = [
    path
    for path in Path(input_hessian.__file__).parent.rglob("*.py")
    if "experiment" not in path.parts
]


@pytest.mark.parametrize("name", input_hessian.__all__)
def test_every_public_name_is_there_visible_and_documented(name):
    value = getattr(input_hessian, name)
    assert value.__name__ == name
    assert name in dir(input_hessian)
    assert len(value.__doc__) > 40


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'operator_nrom'"):
        input_hessian.operator_nrom  # noqa: B018


@pytest.mark.parametrize("path", CORE, ids=lambda path: path.stem)
def test_the_method_needs_the_standard_library_and_torch_alone(path):
    for node in ast.walk(ast.parse(path.read_text())):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            modules = [node.module]
        for module in modules:
            package = module.partition(".")[0]
            assert package in {"torch", "input_hessian", *sys.stdlib_module_names}
            assert not module.startswith("input_hessian.experiment")


def test_importing_the_package_costs_no_torch():
    check = "import sys, input_hessian; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_imports_run_one_way():
    """The contracts of import-linter, in pyproject.toml."""
    command = [Path(sys.executable).parent / "lint-imports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
