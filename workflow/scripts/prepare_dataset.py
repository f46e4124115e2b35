"""Fetch and verify one data set, split it, and write it as one safetensors file."""

import argparse
import json
import sys
from pathlib import Path

from input_hessian import datasets
from input_hessian.files import write_atomically


def main() -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=datasets.DATASETS)
    parser.add_argument(
        *("--mirror", "--mirrors"),
        dest="mirrors",
        nargs="*",
        action="extend",
        default=[],
        help="folder or URL with <dataset>/<file name>, tried before the public ones",
    )
    parser.add_argument("--raw", type=Path, help="cache of the files (default: data/raw/<dataset>)")
    parser.add_argument("--output", type=Path, help="default: data/<dataset>.safetensors")
    parser.add_argument("--provenance", type=Path, help="default: data/<dataset>.json")
    args = parser.parse_args()
    dataset = datasets.DATASETS[args.dataset]
    raw = args.raw or Path("data/raw") / dataset.name
    output = args.output or Path("data") / f"{dataset.name}.safetensors"
    provenance = args.provenance or Path("data") / f"{dataset.name}.json"
    mirrors = [mirror for mirror in args.mirrors if mirror]
    try:
        served = datasets.fetch(dataset, raw, sources=datasets.sources_for(dataset, mirrors))
        for filename, source in served.items():
            print(f"{dataset.name}/{filename}: md5 verified, from {source}")
        tensors = datasets.prepare(dataset, raw)
        description = datasets.describe(dataset, tensors)
        datasets.save(tensors, output, description)
        # Where the files came from stays out of the tensor file, whose bytes must not depend on it.
        record = {**description, "md5": dict(dataset.files), "sources": served}
        write_atomically(provenance, json.dumps(record, indent=2) + "\n")
    except (datasets.DatasetError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    sizes = ", ".join(f"{size} {split}" for split, size in description["sizes"].items())
    print(f"{dataset.name}: {sizes} images of shape {dataset.image_shape} -> {output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
