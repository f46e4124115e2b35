"""Attack one trained cell and record, per test image, what it withstood."""

import json

import pandas as pd
import torch
from safetensors.torch import save

from input_hessian.experiment.attacks import MINIMAL_NORM, AttackSettings, clean_verdicts
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import evaluation_images, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import evaluate, predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.tables import CELL, empty_table


def main(
    data: Input,
    model: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    images: Output,
    perturbations: Output,
    evaluation: Output,
    examples: Output,
) -> None:
    place = configure(device, threads)
    cell = settings["cell"]
    chosen = evaluation_images(data, settings["images"])
    network, status = load_model(model, place)
    correct = clean_verdicts(network, chosen.images, chosen.labels)
    where = environment(place, threads)
    records = Records(
        # Beside the outputs, but not declared: Snakemake deletes those before it repeats a job.
        images.with_name("attacks"),
        fingerprint(settings, where, [*source_files(__file__), data, model]),
    )

    # The first image of each class in the subset, for the figure of adversarial examples.
    shown = torch.tensor(
        [int((chosen.labels == label).nonzero()[0]) for label in chosen.labels.unique()]
    )
    tensors = {"images": chosen.images[shown], "labels": chosen.labels[shown]}
    tables = []
    sizes = []
    attacks = [AttackSettings(**attack) for attack in settings["attacks"]]
    for attack, record in run_attacks(
        network,
        chosen.images,
        chosen.labels,
        attacks if status == "finished" else [],
        epsilons=settings["epsilons"],
        headline=settings["headline"],
        seed=cell["seed"],
        records=records,
    ):
        tables.append(verdicts(attack, record, correct, chosen.index, chosen.labels))
        if attack.attack in MINIMAL_NORM:
            size = {"index": chosen.index, "label": chosen.labels, "distance": record.epsilon_found}
            sizes.append(pd.DataFrame(size).assign(attack=attack.attack, norm=attack.norm))
        name = f"{attack.attack}_{attack.norm}"
        adversarial = record.adversarial[shown]
        tensors[f"{name}_images"] = adversarial
        tensors[f"{name}_epsilon"] = record.epsilon_found[shown]
        tensors[f"{name}_prediction"] = predict(network, adversarial).argmax(1)

    def write(path, tables, columns):
        """Write the concatenation with the cell's identity, as parquet."""
        columns = ["index", "label", *CELL, *columns]
        table = pd.concat(tables).assign(**cell) if tables else empty_table(columns)
        write_atomically(path, table[columns].to_parquet(index=False))

    write(images, tables, ["attack", "norm", "epsilon", "robust"])
    write(perturbations, sizes, ["attack", "norm", "distance"])
    write_atomically(examples, save({k: v.contiguous() for k, v in tensors.items()}))
    test = load(data, "test")
    loss, accuracy = evaluate(network, test.images, test.labels)
    measured = {
        **cell,
        "test_loss": loss,
        "test_accuracy": accuracy,
        "test_images": len(test.labels),
        # of the best guess that looks at no image: below it, a network has learnt nothing
        "constant_accuracy": test.labels.bincount().max().item() / len(test.labels),
        "attacked_images": len(chosen.labels),
        "evaluated_with": where,
    }
    write_atomically(evaluation, json.dumps(measured, indent=2) + "\n")
    records.delete()


if __name__ == "__main__":
    run(main)
