"""What YAML makes of a text where that is not what the text reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from input_hessian.experiment.errors import UserError


def misread(text: str) -> Iterator[str]:
    """Yield a line per key that stands twice and per value that YAML 1.1 takes for another one.

    Of keys that stand twice, the last wins silently; ``010`` is 8, ``1:30`` is 90, ``no`` is false.
    What is no YAML is left to whoever reads it.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError:
        return
    yield from _misread(root, "", set()) if root else ()


def check(texts: dict[Any, str]) -> None:
    """Refuse files of which YAML makes something else than they read.

    Args:
        texts: contents by path.

    Raises:
        UserError: with a line for each thing that :func:`misread` finds.
    """
    found = [f"{file}, {problem}" for file, text in texts.items() for problem in misread(text)]
    if found:
        raise UserError("\n".join(found))


def _misread(node: yaml.Node, where: str, seen: set[int]) -> Iterator[str]:
    if id(node) in seen:  # an alias
        return
    seen.add(id(node))
    line = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.SequenceNode):
        for i, part in enumerate(node.value):
            yield from _misread(part, f"{where}[{i}]", seen)
    elif isinstance(node, yaml.MappingNode):
        lines: dict[str, int] = {}
        for key, part in node.value:
            path, here = f"{where}.{key.value}".lstrip("."), key.start_mark.line + 1
            if first := lines.get(str(key.value)):
                yield f"line {here}: {path} stands in line {first} already; delete one of them"
            lines[str(key.value)] = here
            yield from _misread(key, path, seen)
            yield from _misread(part, path, seen)
    elif node.style is None and (value := _other(node)) is not None:
        place = f"{where}: " if where else ""
        yield (
            f"{line}: {place}YAML reads {node.value} as {value}; write {value}, or "
            f"'{node.value}' for a text"
        )


def _other(scalar: yaml.ScalarNode) -> str | None:
    """Return what YAML makes of a text without quotes, if it is written in another way."""
    kind = scalar.tag.rpartition(":")[2]
    if kind not in ("bool", "float", "int"):
        return None
    loader = yaml.SafeLoader("")
    value, text = loader.construct_object(scalar), scalar.value
    if kind == "float":
        plain = set(text) <= set("0123456789.eE+-") or value in (float("inf"), float("-inf"))
        return None if plain or value != value else str(value)
    read = str(value).lower() if kind == "bool" else str(value)
    return None if read == text.lower().removeprefix("+") else read


def typed(given: dict[str, Any]) -> dict[str, Any]:
    """Return the values of Snakemake's ``--config``, which makes a text of all inside [...] and {...}.

    Raises:
        UserError: as :func:`misread`.
    """
    return {
        key: _typed(value, key) if isinstance(value, (dict, list)) else value
        for key, value in given.items()
    }


def _typed(value: Any, where: str) -> Any:
    if isinstance(value, dict):
        return {key: _typed(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, list):
        return [_typed(part, f"{where}[{i}]") for i, part in enumerate(value)]
    for problem in misread(value):
        raise UserError(f"--config: {where}: {problem.partition(': ')[2]}")
    try:
        return yaml.safe_load(value)
    except yaml.YAMLError:
        return value
