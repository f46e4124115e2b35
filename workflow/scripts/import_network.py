"""Check a network that was trained elsewhere and write it down as if it had been trained here."""

import importlib
import json
from pathlib import Path

from train import COLUMNS, describe

from input_hessian.experiment.checkpoints import check_network, load_checkpoint, made_by
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import class_names, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import UserError
from input_hessian.experiment.exported import SUFFIX
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import correct
from input_hessian.experiment.models import save_model
from input_hessian.experiment.plugins import plugin_file
from input_hessian.experiment.provenance import environment
from input_hessian.experiment.release import sha256
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.training import TrainingResult


def main(
    data: Input,
    checkpoint: Input,
    *,
    settings: Settings,
    threads: int,
    model: Output,
    training: Output,
    curve: Output,
) -> None:
    place = configure("cpu", threads)
    images, labels, _ = load(data, "validation")
    architecture, options = settings["network"]["architecture"], settings["network"]["options"]
    made = {
        "architecture": made_by(checkpoint, architecture),
        "image_shape": list(images.shape[1:]),
        "classes": len(class_names(data)),
    }
    try:
        network = load_checkpoint(checkpoint, **made, options=options)
        logits = check_network(network, images, made["classes"])
    except UserError as error:
        raise UserError(f"networks.{settings['cell']['regularizer']}: {error}") from None
    accuracy = correct(logits, labels).double().mean().item()
    where = environment(place, threads)
    # The code is part of the file: where it changes, so does what the same parameters compute.
    code = b"".join(path.read_bytes() for path in code_files(made["architecture"]))
    save_model(network, made | options, model, code=sha256(code))
    write_atomically(curve, ",".join(COLUMNS) + "\n")
    record = describe(settings, network, TrainingResult("finished", []), place, where)
    unknown = dict.fromkeys(["train_seconds", "peak_memory_mb"])
    record |= {"validation_accuracy": accuracy} | unknown
    write_atomically(training, json.dumps(record, indent=2) + "\n")
    print(f"{checkpoint}: {100 * accuracy:.2f}% of the validation images")


def code_files(architecture: str) -> list[Path]:
    """Return the files with the code of a network; of an installed package, that of the module."""
    if architecture.endswith(SUFFIX):
        return [Path(architecture)]
    module, _, function = architecture.partition(":")
    if function:
        return [Path(importlib.import_module(module).__file__)]
    return source_files(plugin_file("architecture", architecture))


if __name__ == "__main__":
    run(main)
