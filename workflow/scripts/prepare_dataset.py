"""Fetch and verify one data set, split it, and write it as one safetensors file."""

import json
from pathlib import Path

from input_hessian.experiment import datasets
from input_hessian.experiment.command import Output, Untracked, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.plugins import load_plugin


def main(dataset: str, *, mirror: Untracked, raw: str, data: Output, provenance: Output) -> None:
    known = load_plugin("dataset", dataset).DATASET
    served = datasets.fetch(known, Path(raw), [] if mirror == "none" else [mirror])
    for filename, source in served.items():
        print(f"{known.name}/{filename}: md5 verified, from {source}")
    tensors = datasets.prepare(known, Path(raw))
    description = datasets.describe(known, tensors)
    datasets.save(tensors, data, description)
    # Where the files came from stays out of the tensor file, whose bytes must not depend on it.
    record = {**description, "md5": dict(known.files), "sources": served}
    write_atomically(provenance, json.dumps(record, indent=2) + "\n")
    sizes = ", ".join(f"{size} {split}" for split, size in description["sizes"].items())
    print(f"{known.name}: {sizes} images of shape {known.image_shape} -> {data}")


if __name__ == "__main__":
    run(main)
