"""Pack a finished run for a repository such as Zenodo, described as an RO-Crate.

The archive holds tables, figures, notebook, the outcomes of every image, the selected networks, the
configuration, where all of it comes from, and the code.  Its ``ro-crate-metadata.json`` follows the
profile Workflow Run Crate (https://w3id.org/ro/wfrun/workflow/0.5).  Unpacked, it is a folder in which
``uv run snakemake`` runs; authors and licence are those of ``CITATION.cff``.
"""

import json
from pathlib import Path

import yaml
from archive import packed, write_zip
from rocrate.model.contextentity import ContextEntity
from rocrate.rocrate import ROCrate

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.readers import read_json

ROOT = Path(__file__).parents[2]
PROFILES = {
    "https://w3id.org/ro/wfrun/process/0.5": ("Process Run Crate", "0.5"),
    "https://w3id.org/ro/wfrun/workflow/0.5": ("Workflow Run Crate", "0.5"),
    "https://w3id.org/workflowhub/workflow-ro-crate/1.0": ("Workflow RO-Crate", "1.0"),
}
FORMATS = {
    **{".csv": "text/csv", ".html": "text/html", ".json": "application/json"},
    **{".md": "text/markdown", ".pdf": "application/pdf", ".png": "image/png"},
    **{".safetensors": "application/octet-stream", ".tex": "application/x-tex"},
    **{".pt": "application/octet-stream", ".pt2": "application/octet-stream"},
    **{".cff": "application/yaml", ".yaml": "application/yaml"},
}


def place(path: Path) -> str:
    """Return the name in the archive of a file of the project or of the user's own.

    Raises:
        UserError: if it lies neither in the project nor in the working folder.
    """
    for folder in (ROOT, Path.cwd()):
        if path.resolve().is_relative_to(folder.resolve()):
            return path.resolve().relative_to(folder.resolve()).as_posix()
    raise UserError(
        f"{path}: expected files of your own in the working folder, {Path.cwd()}, got one outside; "
        "copy it there and name the copy in the configuration"
    )


def describe(record: dict, citation: dict, described: dict[str, bytes], folders: list[str]) -> dict:
    """Return the metadata of the crate.

    Args:
        record: ``provenance.json``.
        citation: ``CITATION.cff``.
        described: files that have an entity of their own.
        folders: those that have one as a whole.
    """
    name, written = record["name"], record["written_by"]
    crate = ROCrate(version="1.1")  # the version that the profiles build on
    root = crate.root_dataset

    def add(identifier: str, **properties) -> ContextEntity:
        return crate.add(ContextEntity(crate, identifier, properties=properties))

    licence = f"https://spdx.org/licenses/{citation['license']}"
    licence = add(licence, **{"@type": "CreativeWork", "name": citation["license"]})
    authors = [
        add(
            f"#author-{i}",
            **{
                "@type": "Organization" if "name" in author else "Person",
                "name": author.get("name") or f"{author['given-names']} {author['family-names']}",
            },
        )
        for i, author in enumerate(citation["authors"], 1)
    ]
    authors = authors if len(authors) > 1 else authors[0]  # a list of one is not recommended
    parts = {
        path: crate.add_file(
            dest_path=path,
            properties={
                "name": path,
                "encodingFormat": FORMATS.get(Path(path).suffix, "text/plain"),
                "contentSize": str(len(content)),
            },
        )
        for path, content in described.items()
    }
    for folder in folders:
        parts[folder] = crate.add_dataset(dest_path=folder, properties={"name": folder})
    parts["README.md"]["about"] = root
    workflow = crate.add_workflow(
        dest_path="workflow/Snakefile",
        main=True,
        lang="snakemake",
        lang_version=record["versions"]["snakemake"],
        properties={
            "name": citation["title"],
            "description": citation["abstract"],
            "version": f"{citation['version']}, commit {written['commit']}",
            "encodingFormat": "text/plain",
            "license": {"@id": licence.id},
            "conformsTo": {
                "@id": "https://bioschemas.org/profiles/ComputationalWorkflow/1.0-RELEASE"
            },
        },
    )
    workflow["author"] = authors
    data = [
        add(
            f"#data-{dataset}",
            **{
                "@type": "PropertyValue",
                "name": f"SHA-256 of {entry['file']}",
                "value": entry["sha256"],
            },
        )
        for dataset, entry in record["data"].items()
    ]
    action = add(
        "#run",
        **{
            "@type": "CreateAction",
            "name": f"Run of {citation['title']}: {name}",
            "description": f"snakemake, with the configuration of config.yaml; {sum(record['cells'].values())} "
            f"networks, seeds {', '.join(map(str, record['seeds']))}, commit {written['commit']}",
            "endTime": written["time"],
        },
    )
    action["instrument"] = workflow
    action["agent"] = authors
    action["object"] = [parts["config.yaml"], *data]
    action["result"] = [
        entity for path, entity in parts.items() if path.startswith(("reports/", "results/"))
    ]
    profiles = [
        add(url, **{"@type": "CreativeWork", "name": title, "version": version})
        for url, (title, version) in PROFILES.items()
    ]
    root["conformsTo"] = profiles
    root["mentions"] = action
    root["author"] = authors
    root["license"] = licence
    root["name"] = f"{citation['title']}: results of {name}"
    root["description"] = (
        f"{citation['abstract']} Tables, figures, outcomes per image, networks, configuration, "
        "provenance and code of one run."
    )
    root["datePublished"] = written["time"]
    crate.metadata.extra_contexts.append("https://w3id.org/ro/terms/workflow-run/context")
    return crate.metadata.generate()


def main(
    record: Input,
    examples: list[Input],
    made: list[Input],
    project: list[Input],
    *,
    settings: Settings,
    archive: Output,
) -> None:
    grid, provenance = settings["grid"], read_json(record)
    report, results = (f"{kind}/{provenance['name']}/" for kind in ("reports", "results"))
    # Not where they are: a workflow that uses this one as a module may have put them elsewhere.
    described = {
        report + path.relative_to(record.parent).as_posix(): path.read_bytes()
        for path in [record, *made]
    }
    outcomes = {
        results + path.relative_to(grid["results"]).as_posix(): path.read_bytes()
        for path in packed(grid, examples)
    }
    code = {place(path): path.read_bytes() for path in project}
    # Alone, it is what all files together were for this run.
    code["config.yaml"] = yaml.safe_dump(
        provenance["config"], allow_unicode=True, sort_keys=False
    ).encode()
    described |= {name: content for name, content in code.items() if "/" not in name}
    folders = sorted({f"{name.partition('/')[0]}/" for name in code if "/" in name})
    citation = yaml.safe_load(code["CITATION.cff"])
    metadata = describe(provenance, citation, described, [results, *folders])
    contents = described | outcomes | code
    contents["ro-crate-metadata.json"] = json.dumps(metadata, indent=2, ensure_ascii=False).encode()
    write_zip(archive, contents)


if __name__ == "__main__":
    run(main)
