"""Penalties, models and data sets, each a file of its own, found by name or by path.

A name is a module of the package that holds the built-in ones; a path (it ends in ``.py``) is a
file of the user's own, relative to the working directory.  A job depends on the one file that it
loads, so adding another changes nothing that is computed already.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from input_hessian.experiment.errors import UserError, closest
from input_hessian.experiment.sources import watch

PACKAGES = {
    "penalty": "input_hessian.penalties",
    "architecture": "input_hessian.experiment.models",
    "dataset": "input_hessian.experiment.datasets",
}
ROOT = Path(__file__).parents[2]


def plugin_file(kind: str, name: str) -> Path:
    """Return the file that a name or a path stands for.

    Args:
        kind: ``"penalty"``, ``"architecture"`` or ``"dataset"``.
        name: of a built-in one, or a path that ends in ``.py``.

    Raises:
        UserError: if there is no such file; the message lists the built-in names.
    """
    folder = ROOT.joinpath(*PACKAGES[kind].split("."))
    path = Path(name) if name.endswith(".py") else folder / f"{name}.py"
    if name.endswith(".py") and not path.is_file():
        raise UserError(f"{kind}: {name}: no such file; paths start in the working directory")
    if not path.is_file() or name.startswith("_"):
        known = sorted(file.stem for file in folder.glob("[!_]*.py"))
        raise UserError(
            f"{kind}: expected one of {', '.join(known)}, or the path of a file that ends in .py, "
            f"got {name!r}{closest(name, known)}"
        )
    return path


def load_plugin(kind: str, name: str) -> ModuleType:
    """Return the module of :func:`plugin_file`.

    Raises:
        UserError: as there, or if a file of the user's own cannot be imported.
    """
    path = plugin_file(kind, name)
    watch(path)
    if not name.endswith(".py"):
        return importlib.import_module(f"{PACKAGES[kind]}.{name}")
    spec = importlib.util.spec_from_file_location(f"_{kind}_{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look up their annotations
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise UserError(f"{kind}: {path} cannot be imported: {error!r}; mend the file") from error
    return module
