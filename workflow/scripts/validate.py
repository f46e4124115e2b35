"""Attack validation images of one trained cell: what the selection of a weight goes by."""

import argparse
import json
from pathlib import Path

import torch

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.datasets import evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import evaluate
from input_hessian.experiment.models import load_model


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="what to do, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="output, JSON")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cell = args.settings["cell"]
    split = load(args.data, "validation")
    chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(split.labels)))
    model, status = load_model(args.model, device)
    accuracies, clean = {}, None
    if status == "finished":
        _, clean = evaluate(model, split.images, split.labels)
    for norm, epsilons in args.settings["headline"].items() if status == "finished" else []:
        record = run_attack(
            model,
            split.images[chosen],
            split.labels[chosen],
            AttackSettings("pgd", norm, steps=args.settings["steps"]),
            epsilons,
            seed=cell["seed"],
        )
        robust = record.robust.double().mean(1).tolist()
        accuracies[norm] = dict(zip(map(str, epsilons), robust, strict=True))
        print(norm, accuracies[norm], flush=True)
    result = {
        **cell,
        "status": status,
        "accuracy": clean,  # of all validation images
        "attacked_images": len(chosen),
        "robust_accuracy": accuracies,
    }
    write_atomically(args.output, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
