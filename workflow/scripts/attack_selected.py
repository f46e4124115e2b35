"""Go on attacking the selected cell of every regularizer; the verdicts of all attacks on it."""

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
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.tables import broken_at, selected_lams


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
    where = environment(place, threads)
    dataset, seed = settings["dataset"], settings["seed"]
    budget = {name: settings[name] for name in ("images", "epsilons", "attacks")}
    chosen = evaluation_images(data, budget["images"])
    lams = selected_lams(selection, dataset)
    tables = []
    for entry, path, before in zip(settings["cells"], models, earlier, strict=True):
        regularizer, lam = entry["regularizer"], entry["lam"]
        if lam != lams[regularizer]:
            continue
        tables.append(read_parquet(before))
        network, status = load_model(path, place)
        if status != "finished":
            continue
        print(f"{regularizer}, lam {lam:g}:", flush=True)
        cell = {"dataset": dataset, "regularizer": regularizer, "lam": lam, "seed": seed}
        # The records stay: a new lam of any regularizer repeats the selection, and with it this job,
        # although the lam selected is mostly the same.
        records = Records(
            images.with_name("attacks") / regularizer,
            fingerprint(
                {**budget, "cell": cell}, where, [*source_files(__file__), data, path, before]
            ),
        )
        broken = broken_at(tables[-1]).unstack("norm").loc[chosen.index.tolist()]
        done = run_attacks(
            network,
            chosen.images,
            chosen.labels,
            [AttackSettings(**attack) for attack in budget["attacks"]],
            epsilons=budget["epsilons"],
            seed=seed,
            records=records,
            broken_at={norm: torch.from_numpy(broken[norm].to_numpy(copy=True)) for norm in broken},
        )
        correct = clean_verdicts(network, chosen.images, chosen.labels)
        columns = tables[-1].columns
        for attack in done:
            table = verdicts(*attack, correct, chosen.index, chosen.labels)
            tables.append(table.assign(**cell)[columns])
    write_atomically(images, pd.concat(tables).to_parquet(index=False))


if __name__ == "__main__":
    run(main)
