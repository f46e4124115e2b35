"""What a script's source says of itself: its parameters, and the files that it depends on.

Read from the syntax tree: nothing is imported, so that this costs a workflow well under a second.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]  # the folder that holds the package input_hessian
_watched: dict[Path, bytes] = {}


def parameters(script: Path) -> dict[str, str]:
    """Return the parameters of the script's function ``main``, each with its annotation as text."""
    tree = ast.parse(script.read_bytes())
    (main,) = (
        node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main"
    )
    arguments = [*main.args.posonlyargs, *main.args.args, *main.args.kwonlyargs]
    return {argument.arg: ast.unparse(argument.annotation) for argument in arguments}


def source_files(*files: str | Path) -> list[Path]:
    """Return the given files and those of this project that they import, directly or not, sorted.

    Imports inside functions count; what is looked up by name at run time
    (:mod:`input_hessian.experiment.plugins`) does not.
    """
    found = {Path(file).resolve() for file in files}
    waiting = list(found)
    while waiting:
        new = set(_imports(waiting.pop())) - found
        found |= new
        waiting += new
    return sorted(found)


def watch(file: str | Path) -> None:
    """Remember what a file and those that it imports hold now: it is about to run."""
    for path in source_files(file):
        _watched.setdefault(path, path.read_bytes())


def unwatch() -> None:
    """Forget all files that are watched: another script is about to run in this process."""
    _watched.clear()


def edited() -> list[Path]:
    """Return which of the files that are watched hold something else by now, or are gone."""
    return [
        path
        for path, content in _watched.items()
        if not path.is_file() or path.read_bytes() != content
    ]


@cache
def _imports(file: Path) -> tuple[Path, ...]:
    """Return the project's files that one file imports, with the packages on the way."""
    modules = set()
    for node in _executed(ast.parse(_code(file))):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
    # A script finds those beside it.
    roots = [ROOT] if file.is_relative_to(ROOT) else [ROOT, file.parent]
    found = (path for module in modules for root in roots for path in _files(module, root))
    return tuple(dict.fromkeys(found))


def _executed(node: ast.AST) -> Iterator[ast.AST]:
    """Yield a node and all inside it, without what only type checkers read."""
    yield node
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            for other in child.orelse:
                yield from _executed(other)
        else:
            yield from _executed(child)


def _code(file: Path) -> str:
    """Return the code of a Python file, or of the cells of a notebook, without its magics."""
    if file.suffix != ".ipynb":
        return file.read_text("utf-8")
    cells = [cell for cell in json.loads(file.read_bytes())["cells"] if cell["cell_type"] == "code"]
    lines = "\n".join("".join(cell["source"]) for cell in cells).splitlines()
    return "\n".join(line for line in lines if not line.startswith("%"))


def _files(module: str, place: Path) -> Iterator[Path]:
    """Yield the files below a folder that importing a module, or a name in one, runs."""
    for part in module.split("."):
        if (place / f"{part}.py").is_file():
            yield place / f"{part}.py"
            return
        place /= part
        if not (place / "__init__.py").is_file():
            return  # a name in the package before, or not of this project
        yield place / "__init__.py"
