"""Attack one trained cell and record, per test image, what it withstood."""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from input_hessian.attacks import AttackSettings, run_attack
from input_hessian.datasets import evaluation_subset, load
from input_hessian.errors import run
from input_hessian.files import write_atomically
from input_hessian.models import load_model
from input_hessian.provenance import environment
from input_hessian.training import configure, evaluate, predict


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="evaluation, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="output: per image, parquet")
    parser.add_argument("--evaluation", type=Path, required=True, help="output: per cell, JSON")
    parser.add_argument("--examples", type=Path, required=True, help="output: images, safetensors")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cell = args.settings["cell"]
    test = load(args.data, "test")
    chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(test.labels)))
    images, labels = test.images[chosen], test.labels[chosen]
    model, status = load_model(args.model, device)
    clean = predict(model, images).argmax(1) == labels

    # The first image of each class in the subset, for the figure of adversarial examples.
    shown = torch.tensor([int((labels == label).nonzero()[0]) for label in labels.unique()])
    examples = {"images": images[shown], "labels": labels[shown]}
    tables = []

    def record(attack, norm, epsilon, robust):
        """Add the verdict on every image of one attack at one radius."""
        tables.append(
            pd.DataFrame({"index": test.index[chosen], "label": labels, "robust": robust}).assign(
                **cell, attack=attack, norm=norm, epsilon=float(epsilon)
            )
        )

    for attack in args.settings["attacks"] if status == "finished" else []:
        settings = AttackSettings(**attack)
        record(settings.attack, settings.norm, 0, clean)
        result = run_attack(
            model,
            images,
            labels,
            settings,
            args.settings["epsilons"][settings.norm],
            seed=cell["seed"],
        )
        for epsilon, robust in zip(result.epsilons, result.robust, strict=True):
            record(settings.attack, settings.norm, epsilon, robust)
        name = f"{settings.attack}_{settings.norm}"
        examples[f"{name}_images"] = result.adversarial[shown]
        examples[f"{name}_epsilon"] = result.epsilon_found[shown]
        examples[f"{name}_prediction"] = predict(model, result.adversarial[shown]).argmax(1)
        accuracies = [
            f"{epsilon:g}: {robust.double().mean():.3f}"
            for epsilon, robust in zip(result.epsilons, result.robust, strict=True)
        ]
        print(f"{settings.attack} {settings.norm}  {'  '.join(accuracies)}", flush=True)

    columns = ["index", "label", "dataset", "regularizer", "lam", "seed"]
    columns += ["attack", "norm", "epsilon", "robust"]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=columns)
    write_atomically(args.images, table[columns].to_parquet(index=False))
    write_atomically(args.examples, save({k: v.contiguous() for k, v in examples.items()}))
    loss, accuracy = evaluate(model, test.images, test.labels)
    measured = {
        **cell,
        "test_loss": loss,
        "test_accuracy": accuracy,
        "test_images": len(test.labels),
        "attacked_images": len(labels),
        "evaluated_with": environment(device, args.threads),
    }
    write_atomically(args.evaluation, json.dumps(measured, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
