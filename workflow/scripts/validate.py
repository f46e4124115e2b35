"""Attack validation images of one trained cell: what lam is selected by."""

import json

from input_hessian.experiment.attacks import AttackSettings, run_attack
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import evaluation_images, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import evaluate
from input_hessian.experiment.models import load_model


def main(
    data: Input, model: Input, *, settings: Settings, device: str, threads: int, validation: Output
) -> None:
    cell = settings["cell"]
    network, status = load_model(model, configure(device, threads))
    chosen = evaluation_images(data, settings["images"], "validation")
    accuracies, clean = {}, None
    if status == "finished":
        split = load(data, "validation")
        _, clean = evaluate(network, split.images, split.labels)
    for norm, epsilons in settings["epsilons"].items() if status == "finished" else []:
        record = run_attack(
            network,
            chosen.images,
            chosen.labels,
            AttackSettings("apgd-ce", norm),
            epsilons,
            seed=cell["seed"],
        )
        robust = record.robust.double().mean(1).tolist()
        accuracies[norm] = dict(zip(map(str, epsilons), robust, strict=True))
        shown = (f"{e:g}: {a:.3f}" for e, a in zip(epsilons, robust, strict=True))
        print(f"validation: apgd-ce {norm}  {'  '.join(shown)}", flush=True)
    result = {
        **cell,
        "status": status,
        "accuracy": clean,  # of all validation images
        "attacked_images": len(chosen.labels),
        "robust_accuracy": accuracies,
    }
    write_atomically(validation, json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    run(main)
