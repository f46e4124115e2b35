"""Go on attacking the selected one of a regularizer's cells; the verdicts of all attacks on it."""

import pandas as pd
import torch

from input_hessian.experiment.attacks import AttackSettings, clean_verdicts
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.devices import configure
from input_hessian.experiment.evaluation import Records, run_attacks, verdicts
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.models import load_model
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.tables import broken_at, selected_lam


def main(
    selection: Input,
    data: Input,
    models: list[Input],
    earlier: list[Input],
    *,
    settings: Settings,
    device: str,
    threads: int,
    images: Output,
) -> None:
    place = configure(device, threads)
    cells = settings["cells"]  # in the order of the models
    lam = selected_lam(selection, cells[0]["dataset"], cells[0]["regularizer"])
    which = [cell["lam"] for cell in cells].index(lam)
    cell, path = cells[which], models[which]
    chosen = evaluation_images(data, settings["images"])
    network, status = load_model(path, place)
    where = environment(place, threads)
    records = Records(
        images.with_name("attacks"),
        fingerprint(
            {**settings, "cells": cell},
            where,
            [*source_files(__file__), data, path, earlier[which]],
        ),
    )
    tables = [pd.read_parquet(earlier[which])]
    if status == "finished":
        broken = broken_at(tables[0]).unstack("norm")
        broken = broken.loc[chosen.index.tolist()]
        done = run_attacks(
            network,
            chosen.images,
            chosen.labels,
            [AttackSettings(**attack) for attack in settings["attacks"]],
            epsilons=settings["epsilons"],
            seed=cell["seed"],
            records=records,
            broken_at={norm: torch.from_numpy(broken[norm].to_numpy(copy=True)) for norm in broken},
        )
        correct = clean_verdicts(network, chosen.images, chosen.labels)
        further = [verdicts(*attack, correct, chosen.index, chosen.labels) for attack in done]
        tables += [table.assign(**cell)[tables[0].columns] for table in further]
    # The records stay: a new lam of any regularizer repeats the selection, and with it this job,
    # although the lam selected is mostly the same.
    write_atomically(images, pd.concat(tables).to_parquet(index=False))
    print(f"attacked {path}")


if __name__ == "__main__":
    run(main)
