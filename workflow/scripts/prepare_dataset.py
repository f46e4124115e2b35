"""Fetch and verify one data set, split it, and write it as one safetensors file."""

import argparse
import json
from pathlib import Path

from input_hessian.experiment import datasets
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, choices=datasets.DATASETS)
    parser.add_argument(
        "--mirror",
        nargs="*",
        default=[],
        help="folders or URLs with <dataset>/<file name>, tried before the public addresses",
    )
    parser.add_argument("--raw", type=Path, required=True, help="cache of the official files")
    parser.add_argument("--output", type=Path, required=True, help="output, safetensors")
    parser.add_argument("--provenance", type=Path, required=True, help="output, JSON")
    args = parser.parse_args()

    dataset = datasets.DATASETS[args.dataset]
    mirrors = [mirror for mirror in args.mirror if mirror]
    sources = datasets.sources_for(dataset, mirrors)
    served = datasets.fetch(dataset, args.raw, sources=sources)
    for filename, source in served.items():
        print(f"{dataset.name}/{filename}: md5 verified, from {source}")
    tensors = datasets.prepare(dataset, args.raw)
    description = datasets.describe(dataset, tensors)
    datasets.save(tensors, args.output, description)
    # Where the files came from stays out of the tensor file, whose bytes must not depend on it.
    record = {**description, "md5": dict(dataset.files), "sources": served}
    write_atomically(args.provenance, json.dumps(record, indent=2) + "\n")
    sizes = ", ".join(f"{size} {split}" for split, size in description["sizes"].items())
    print(f"{dataset.name}: {sizes} images of shape {dataset.image_shape} -> {args.output}")


if __name__ == "__main__":
    run(main)
