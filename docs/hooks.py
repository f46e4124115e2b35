"""What the pages include from elsewhere: released and benchmark figures, and the configuration's keys."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Folder of the site: where its files come from.
FIGURES = {
    "released": "reports/paper/figures/*.png",
    "follow-up": "reports/follow-up/figures/*.png",
    "rivals": "reports/rivals/figures/*.png",
    "results": "benchmarks/results/*.*",
}
SCHEMA = ROOT / "workflow/schemas/config.schema.json"


def on_files(files, config):
    """Add the figures to the site."""
    for folder, pattern in FIGURES.items():
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in what a page takes from elsewhere."""
    for name in ("benchmarks/README.md", "reports/paper/tables/claims.md"):
        # Lists in lists: Markdown wants four spaces, these files have two.
        text = re.sub(r"^( +)(?=- )", r"\1\1", (ROOT / name).read_text(), flags=re.MULTILINE)
        markdown = markdown.replace(f"<!-- {name} -->", text)
    return markdown.replace("<!-- configuration keys -->", configuration_keys())


def configuration_keys() -> str:
    """Return every key of the configuration with its values, default and description, by section."""
    return "\n\n".join(sections(json.loads(SCHEMA.read_text()), ""))


def sections(node: dict, path: str, schema: dict | None = None) -> list[str]:
    """Return a heading and a table for a mapping, then those of the mappings inside it."""
    schema = schema or node
    blocks = [f"### {f'`{path}`' if path else 'Top level'}"]
    if path:
        blocks.append(" ".join(node.get("description", "").split()))
    rows = ["| key | values | default | meaning |", "|---|---|---|---|"]
    inside = []
    for key, value in node["properties"].items():
        meaning = " ".join(value.get("description", "").split()).replace("|", "\\|")
        default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
        rows.append(f"| `{key}` | {values(value)} | {default} | {meaning} |")
        inside += mappings(value, f"{path}.{key}" if path else key, schema)
    blocks.append("\n".join(rows))
    return [
        *blocks,
        *(block for found, where in inside for block in sections(found, where, schema)),
    ]


def mappings(value: dict, path: str, schema: dict) -> list[tuple[dict, str]]:
    """Return the mappings that a key may hold, with their paths in the YAML file."""
    if "$ref" in value:
        node = schema["$defs"][value["$ref"].rpartition("/")[2]]
        return [(node, path)] if "properties" in node else mappings(node, path, schema)
    found = []
    for member in [*value.get("anyOf", []), *value.get("oneOf", [])]:
        found += mappings(member, path, schema)
    if "items" in value:
        found += mappings(value["items"], f"{path}[]", schema)
    for entry in value.get("patternProperties", {}).values():
        found += mappings(entry, f"{path}.<name>", schema)
    return found


def values(value: dict) -> str:
    """Return what a key may hold, in a few words."""
    choices = value.get("enum") or ([value["const"]] if "const" in value else [])
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    if "items" in value:
        return "list"
    if of := [kind for member in value.get("oneOf", []) if (kind := values(member))]:
        return " or ".join(of)
    kinds = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true, false",
    }
    text = kinds.get(value.get("type", ""), "mapping" if value.get("type") == "object" else "")
    bounds = [
        f"{sign} {value[name]:g}"
        for name, sign in (
            ("minimum", "≥"),
            ("exclusiveMinimum", ">"),
            ("maximum", "≤"),
        )
        if name in value
    ]
    return " ".join([text, *bounds])


def on_page_content(html, page, config, files):
    """Take the roles off names in docstrings: mkdocstrings shows them as they are written."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code)", "", html)
