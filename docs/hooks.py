"""What the pages include from elsewhere: released and benchmark figures, and the configuration's keys."""

import json
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
# Folder of the site: where its files come from.
FIGURES = {"released": "reports/paper/figures/*.png", "results": "benchmarks/results/*.*"}
SCHEMA = ROOT / "workflow/schemas/config.schema.json"


def on_files(files, config):
    """Add the figures to the site."""
    for folder, pattern in FIGURES.items():
        for path in sorted(ROOT.glob(pattern)):
            files.append(File.generated(config, f"{folder}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Fill in what a page takes from elsewhere."""
    benchmarks = (ROOT / "benchmarks/README.md").read_text()
    markdown = markdown.replace("<!-- benchmarks/README.md -->", benchmarks)
    return markdown.replace("<!-- configuration keys -->", configuration_keys())


def configuration_keys() -> str:
    """Return every key of the configuration with its default and description, section by section."""
    schema = json.loads(SCHEMA.read_text())
    blocks = ["### Top level", table(schema)]
    for name, section in schema["$defs"].items():
        if section.get("properties"):
            title = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
            about = " ".join(section.get("description", "").split())
            blocks += [f"### {title}", about, table(section)]
    return "\n\n".join(block for block in blocks if block)


def table(section: dict) -> str:
    """Return the keys of one section as a Markdown table."""
    rows = ["| key | default | meaning |", "|---|---|---|"]
    for key, value in section["properties"].items():
        default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
        meaning = " ".join(value.get("description", "").split()).replace("|", "\\|")
        rows.append(f"| `{key}` | {default} | {meaning} |")
    return "\n".join(rows)


def on_page_content(html, page, config, files):
    """Take the roles off names in docstrings: mkdocstrings shows them as they are written."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code)", "", html)
