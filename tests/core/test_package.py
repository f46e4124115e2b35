"""The method as a package: public names, and what it needs."""

import ast
import subprocess
import sys
from importlib import metadata
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


# What only the pipeline needs, made impossible to import; then every penalty takes a step.
WITHOUT_THE_EXPERIMENT = """
import sys
import warnings

ABSENT = {"experiment", "foolbox", "matplotlib", "numpy", "pandas", "pydantic", "safetensors",
          "scipy", "sklearn", "torchvision", "yaml"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        own = name.removeprefix("input_hessian.")
        if own.partition(".")[0] in ABSENT:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Refuse())
warnings.simplefilter("ignore")  # PyTorch regrets that there is no NumPy
import torch
from input_hessian import *

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Flatten(), torch.nn.Linear(4, 6), torch.nn.Softplus(), torch.nn.Linear(6, 3)
)
images, labels = torch.rand(5, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1])
penalties = [NoPenalty(), GradientPenalty(1), HessianPenalty(1), TaylorPenalty(1), CurePenalty(1),
             JacobianPenalty(1), AdversarialTraining(0.1, "l2"), Trades(0.1, "linf")]
for penalty in penalties:
    objective = penalty(model, images, labels, torch.Generator().manual_seed(0))
    (objective.loss + objective.penalty).mean().backward()
hessian = derivatives(model, images, labels)
top = largest_eigenvalue(hessian.matvec, torch.rand_like(images), hvps=3).value
assert predicted_radius(hessian.loss.detach(), torch.ones(5), top).isfinite().all()
assert (certified_radius(model, images, labels) >= 0).all()
assert not any(name.partition(".")[0] in ABSENT for name in sys.modules)
print("done")
"""


def test_the_method_works_where_only_torch_is_installed():
    command = [sys.executable, "-c", WITHOUT_THE_EXPERIMENT]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == "done\n", done.stderr


def test_the_version_is_that_of_the_installed_package():
    assert input_hessian.__version__ == metadata.version("input-hessian-regularization")
    command = [sys.executable, "-S", "-c", "import input_hessian; print(input_hessian.__version__)"]
    source = str(ROOT / "src")
    done = subprocess.run(command, env={"PYTHONPATH": source}, capture_output=True, text=True)
    assert done.stdout == "unknown\n", done.stderr


def test_imports_run_one_way():
    """The contracts of import-linter, in pyproject.toml."""
    command = [Path(sys.executable).parent / "lint-imports"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# What the method's users see of its types.
USER = """
import torch
from input_hessian import {names}

model, images, labels = torch.nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1])
objective = HessianPenalty(lam=1.0, estimator=Estimator(hvps=3))(model, images, labels)
reveal_type(objective)
reveal_type(operator_norm(derivatives(model, images, labels)).norm)
HessianPenalty(lam="1")
Estimator(method="newton")
import input_hessian
input_hessian.operator_nrom
"""


@pytest.mark.slow  # half a minute without a cache
def test_the_method_passes_the_type_checker_and_its_users_are_checked(tmp_path):
    user = tmp_path / "user.py"
    user.write_text(USER.format(names=", ".join(input_hessian.__all__)))
    command = [sys.executable, "-m", "mypy", "--cache-dir", tmp_path / "cache"]
    done = subprocess.run(
        [*command, "src/input_hessian", user], cwd=ROOT, capture_output=True, text=True
    )
    expected = [
        'note: Revealed type is "tuple[torch._tensor.Tensor, torch._tensor.Tensor, ',
        'note: Revealed type is "torch._tensor.Tensor"',
        'error: Argument "lam" to "HessianPenalty" has incompatible type "str"',
        'error: Argument "method" to "Estimator" has incompatible type "Literal[\'newton\']"',
        'error: Module has no attribute "operator_nrom"',
        "Found 3 errors in 1 file",
    ]
    for line, words in zip(done.stdout.splitlines(), expected, strict=True):
        assert words in line
    assert Path(input_hessian.__file__).with_name("py.typed").exists()  # else users get no types
