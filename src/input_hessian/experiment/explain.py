"""Pydantic's errors in the terms of the YAML file that somebody edits: key, value, what is expected."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from pydantic import ValidationError

from input_hessian.experiment.errors import closest

MAPPING = "a mapping (indented key: value lines)"
# What is expected, by pydantic's type of the error.
EXPECTED = {
    "bool_type": "true or false, without quotes",
    "dataclass_type": MAPPING,
    "dict_type": MAPPING,
    "finite_number": "a number",
    "float_type": "a number",
    "greater_than": "a number greater than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "less_than": "a number less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "list_type": "a list",
    "model_attributes_type": MAPPING,
    "model_type": MAPPING,
    "string_type": "a text",
}


def explain(
    error: ValidationError, schema: dict[str, Any], content: Any, where: str = ""
) -> Iterator[str]:
    """Yield one line per error.

    Args:
        error: what pydantic says.
        schema: JSON schema of what was validated: it knows the keys that are allowed.
        content: what was validated.
        where: path of ``content`` in the configuration.
    """
    for problem in error.errors(include_url=False):
        kind, location, context = problem["type"], problem["loc"], problem.get("ctx", {})
        path = _yaml_path(location, content)
        here, parent = _named(where, path), _named(where, path[:-1])
        got = f"got {json.dumps(problem['input'], default=str)}"
        match kind:
            case "extra_forbidden" | "unexpected_keyword_argument" | "callable_type":
                known = _known_keys(schema, location[:-1])
                hint = closest(path[-1], known)
                yield f"{parent}: unknown key {path[-1]!r}{hint}; allowed are {', '.join(known)}"
            case "missing" | "missing_argument" | "missing_keyword_only_argument":
                yield f"{parent}: missing {path[-1]}; add the line `{path[-1]}: ...`"
            case "union_tag_not_found":
                key = context["discriminator"].strip("'")
                yield f"{here}: missing {key}; add the line `{key}: ...`"
            case "union_tag_invalid":
                key, tag = context["discriminator"].strip("'"), context["tag"]
                yield f"{here}.{key}: got {json.dumps(tag)}, {_one_of(context['expected_tags'], tag)}"
            case "literal_error":
                yield f"{here}: {got}, {_one_of(context['expected'], problem['input'])}"
            case "too_short":
                yield f"{here}: the list is empty, expected at least one entry"
            case "string_pattern_mismatch" if context["pattern"].endswith("py$"):
                yield f"{here}: {got}, expected the path of a file that ends in .py"
            case "string_pattern_mismatch":  # of a name, which may be the key of an entry
                place = parent if location[-1] == "[key]" else here
                yield (
                    f"{place}: {got}, expected lower-case letters, digits, '-' and '_' (a path part)"
                )
            case "string_too_long":
                place = parent if location[-1] == "[key]" else here
                yield (
                    f"{place}: got {len(problem['input'])} characters, expected at most "
                    f"{context['max_length']}: it is part of the names of files; shorten it"
                )
            case "value_error":  # raised by a penalty, which may name the option first
                text = str(context["error"])
                yield f"{here}.{text}" if re.match(r"\w+: ", text) else f"{here}: {text}"
            case _ if kind in EXPECTED:
                hint = _hint(problem["input"], EXPECTED[kind])
                yield f"{here}: {got}, expected {EXPECTED[kind].format(**context)}{hint}"
            case _:
                yield f"{here}: {got}, {problem['msg']}"


def resolved(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return what a node of a JSON schema refers to; of an optional one, what it is if not null."""
    if "anyOf" in node:
        node = node["anyOf"][0]
    return schema["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else node


def _yaml_path(location: tuple[str | int, ...], content: Any) -> list[str | int]:
    """Return the keys to a value, without what pydantic adds for itself."""
    path = []
    for i, part in enumerate(location):
        match content:
            case dict():  # of which a key may be missing, the last one
                named = part in content or i == len(location) - 1
            case list():
                named = isinstance(part, int)
            case _:
                named = False
        if part == "[key]" or not named:
            continue  # of a key itself, or the tag of a union
        path.append(part)
        content = content.get(part) if isinstance(content, dict) else content[part]
    return path


def _named(where: str, path: list[str | int]) -> str:
    for part in path:
        where += f"[{part}]" if isinstance(part, int) else f".{part}" if where else part
    return where or "top level"


def _known_keys(schema: dict[str, Any], location: tuple[str | int, ...]) -> list[str]:
    """Return the keys that the mapping at a location of the schema may have."""
    node = resolved(schema, schema)
    for part in location:
        if isinstance(part, int):
            node = node["items"]
        elif "discriminator" in node:
            node = {"$ref": node["discriminator"]["mapping"][part]}
        else:
            of_any_name = [*node.get("patternProperties", {}).values()]
            of_any_name += [node.get("additionalProperties")]
            node = of_any_name[0] if isinstance(of_any_name[0], dict) else node["properties"][part]
        node = resolved(node, schema)
    return list(node["properties"])


def _one_of(quoted: str, value: Any) -> str:
    allowed = re.findall("'(.*?)'", quoted)
    one_of = "one of " if len(allowed) > 1 else ""
    return f"expected {one_of}{', '.join(allowed)}{closest(value, allowed)}"


def _hint(value: Any, expected: str) -> str:
    """Say how a list of one entry, or a number that came as a text, has to be written."""
    if expected == EXPECTED["list_type"] and not isinstance(value, dict):
        return f"; write [{json.dumps(value)}]"
    if not expected.endswith(" number"):
        return ""
    try:
        number = Decimal(value if isinstance(value, str) else "none")
    except InvalidOperation:
        return ""
    if not number.is_finite():
        return ""
    if f"{number:f}" == value:
        return f"; write {value}, without quotes"
    return f"; write {number:f}, without exponent and quotes"  # YAML 1.1 reads 1e-3 as a text
