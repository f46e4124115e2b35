"""Attack one trained cell and record, per test image, what it withstood."""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import save

from input_hessian.experiment.attacks import MINIMAL_NORM, AttackSettings
from input_hessian.experiment.datasets import evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import evaluate, predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.tables import CELL


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="evaluation, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--library", type=Path, nargs="+", required=True, help="code it depends on")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="output: per image, parquet")
    parser.add_argument("--perturbations", type=Path, required=True, help="output: sizes, parquet")
    parser.add_argument("--evaluation", type=Path, required=True, help="output: per cell, JSON")
    parser.add_argument("--examples", type=Path, required=True, help="output: images, safetensors")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cell = args.settings["cell"]
    test = load(args.data, "test")
    chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(test.labels)))
    images, labels, index = test.images[chosen], test.labels[chosen], test.index[chosen]
    model, status = load_model(args.model, device)
    correct = predict(model, images).argmax(1) == labels
    where = environment(device, args.threads)
    records = Records(
        # Beside the outputs, but not declared: Snakemake deletes those before it repeats a job.
        args.images.with_name("attacks"),
        fingerprint(args.settings, where, [*args.library, args.data, args.model]),
    )

    # The first image of each class in the subset, for the figure of adversarial examples.
    shown = torch.tensor([int((labels == label).nonzero()[0]) for label in labels.unique()])
    examples = {"images": images[shown], "labels": labels[shown]}
    tables = []
    sizes = []
    for settings, record in (
        run_attacks(
            model,
            images,
            labels,
            [AttackSettings(**attack) for attack in args.settings["attacks"]],
            epsilons=args.settings["epsilons"],
            seed=cell["seed"],
            records=records,
        )
        if status == "finished"
        else []
    ):
        tables.append(verdicts(settings, record, correct, index, labels))
        if settings.attack in MINIMAL_NORM:
            sizes.append(
                pd.DataFrame(
                    {"index": index, "label": labels, "distance": record.epsilon_found}
                ).assign(attack=settings.attack, norm=settings.norm)
            )
        name = f"{settings.attack}_{settings.norm}"
        adversarial = record.adversarial[shown]
        examples[f"{name}_images"] = adversarial
        examples[f"{name}_epsilon"] = record.epsilon_found[shown]
        examples[f"{name}_prediction"] = predict(model, adversarial).argmax(1)

    def write(path, tables, columns):
        """Write the concatenation with the cell's identity, as parquet."""
        columns = ["index", "label", *CELL, *columns]
        table = pd.concat(tables).assign(**cell) if tables else pd.DataFrame(columns=columns)
        write_atomically(path, table[columns].to_parquet(index=False))

    write(args.images, tables, ["attack", "norm", "epsilon", "robust"])
    write(args.perturbations, sizes, ["attack", "norm", "distance"])
    write_atomically(args.examples, save({k: v.contiguous() for k, v in examples.items()}))
    loss, accuracy = evaluate(model, test.images, test.labels)
    measured = {
        **cell,
        "test_loss": loss,
        "test_accuracy": accuracy,
        "test_images": len(test.labels),
        "attacked_images": len(labels),
        "evaluated_with": where,
    }
    write_atomically(args.evaluation, json.dumps(measured, indent=2) + "\n")
    records.delete()


if __name__ == "__main__":
    run(main)
