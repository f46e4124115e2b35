"""Go on attacking the selected one of a regularizer's cells: what the first attacks left."""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

from input_hessian.experiment.attacks import AttackSettings
from input_hessian.experiment.datasets import evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.tables import CELL, broken_at, selected_lam


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="evaluation, as JSON")
    parser.add_argument("--selection", type=Path, required=True, help="table of select")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--models", type=Path, nargs="+", required=True, help="one per weight")
    parser.add_argument("--earlier", type=Path, nargs="+", required=True, help="images, per weight")
    parser.add_argument("--library", type=Path, nargs="+", required=True, help="code it depends on")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--images", type=Path, required=True, help="output: per image, parquet")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cells = args.settings["cells"]  # in the order of the models
    lam = selected_lam(args.selection, cells[0]["dataset"], cells[0]["regularizer"])
    which = [cell["lam"] for cell in cells].index(lam)
    cell, path = cells[which], args.models[which]
    test = load(args.data, "test")
    chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(test.labels)))
    images, labels, index = test.images[chosen], test.labels[chosen], test.index[chosen]
    model, status = load_model(path, device)
    where = environment(device, args.threads)
    records = Records(
        args.images.with_name("attacks"),
        fingerprint(
            {**args.settings, "cells": cell},
            where,
            [*args.library, args.data, path, args.earlier[which]],
        ),
    )
    columns = ["index", "label", *CELL, "attack", "norm", "epsilon", "robust"]
    if status == "finished":
        broken = broken_at(pd.read_parquet(args.earlier[which])).unstack("norm")
        broken = broken.loc[index.tolist()]
        done = run_attacks(
            model,
            images,
            labels,
            [AttackSettings(**attack) for attack in args.settings["attacks"]],
            epsilons=args.settings["epsilons"],
            seed=cell["seed"],
            records=records,
            broken_at={norm: torch.from_numpy(broken[norm].to_numpy(copy=True)) for norm in broken},
        )
        correct = predict(model, images).argmax(1) == labels
        table = pd.concat(verdicts(*attack, correct, index, labels) for attack in done)
    else:
        table = pd.DataFrame(columns=columns)
    # The records stay: a new weight of any regularizer makes the selection anew, and with it this
    # job, although the weight selected is mostly the same.
    write_atomically(args.images, table.assign(**cell)[columns].to_parquet(index=False))
    print(f"attacked {path}")


if __name__ == "__main__":
    run(main)
