"""Attack the selected networks of one seed harder than all networks, at the headline radii.

What this finds enters no comparison: it says how much lower the robust accuracies could still be.
Each attack gets what those on all networks and the ones before it left.  Last, the adversarial
examples of every network are tried on every other (transfer): they also break networks that hide
their gradients.
"""

import math

import pandas as pd
import torch
from torch import Tensor, nn

from input_hessian.experiment.attacks import AttackSettings, clean_verdicts, run_attack
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import Split, evaluation_images
from input_hessian.experiment.devices import configure
from input_hessian.experiment.evaluation import Records, run_attacks
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.inference import correct, predict
from input_hessian.experiment.models import load_model
from input_hessian.experiment.provenance import environment, fingerprint
from input_hessian.experiment.readers import read_parquet
from input_hessian.experiment.sources import source_files
from input_hessian.experiment.tables import CELL, broken_at, empty_table, selected_lams

COLUMNS = ["index", "label", *CELL, "norm", "epsilon", "attack", "robust"]
BEFORE = "all networks"  # the attacks that all networks met
TRANSFER = ["dataset", "norm", "epsilon", "source", "target", "examples", "fooled"]


def transfer_examples(
    networks: dict[str, nn.Module], chosen: Split, norm: str, epsilon: float, seed: int
) -> tuple[pd.DataFrame, dict[str, Tensor]]:
    """Try the adversarial examples that APGD-CE finds for each network on every other.

    Args:
        networks: by name.
        chosen: N images.
        norm: of the perturbation.
        epsilon: its radius.
        seed: of the attack.

    Returns:
        Rows ``source, target, examples, fooled``: for how many images that both networks classify
        correctly there is an example that breaks the source, and how many of these break the target
        as well; and by target which images an example of any source broke, bool ``[N]``.
    """
    attack = AttackSettings("apgd-ce", norm)
    right = {
        name: clean_verdicts(network, chosen.images, chosen.labels)
        for name, network in networks.items()
    }
    rows, broken = [], {name: torch.zeros_like(right[name]) for name in networks}
    for source, attacked in networks.items():
        record = run_attack(attacked, chosen.images, chosen.labels, attack, [epsilon], seed=seed)
        found = right[source] & record.epsilon_found.isfinite()
        for target, network in networks.items():
            if target != source:
                tried = found & right[target]
                fooled = tried & ~correct(predict(network, record.adversarial), chosen.labels)
                broken[target] |= fooled
                rows.append([source, target, int(tried.sum()), int(fooled.sum())])
    return pd.DataFrame(rows, columns=["source", "target", "examples", "fooled"]), broken


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
    transfer: Output,
) -> None:
    place = configure(device, threads)
    where = environment(place, threads)
    dataset, epsilons = settings["dataset"], settings["epsilons"]
    # Another seed than that of the attacks before: the first restart would repeat theirs.
    seed = settings["seed"] + 1
    attacks = [AttackSettings(**attack) for attack in settings["attacks"]]
    chosen = evaluation_images(data, settings["images"])
    lams = selected_lams(selection, dataset)
    networks: dict[str, nn.Module] = {}
    # By network and norm: the smallest epsilon at which an attack broke an image, infinite if none.
    broken: dict[str, dict[str, Tensor]] = {}
    tables, matrices = [], []

    def add(name: str, norm: str, attack: str) -> None:
        """Add which images are left after an attack."""
        cell = dict(zip(CELL, [dataset, name, lams[name], settings["seed"]], strict=True))
        rows = pd.DataFrame({"index": chosen.index, "label": chosen.labels}).assign(**cell)
        for epsilon in epsilons[norm]:
            robust = (broken[name][norm] > epsilon).numpy()
            at = {"norm": norm, "epsilon": epsilon, "attack": attack}
            tables.append(rows.assign(robust=robust, **at))

    for entry, path, before in zip(settings["cells"], models, earlier, strict=True):
        name = entry["regularizer"]
        if entry["lam"] != lams[name]:
            continue
        network, status = load_model(path, place)
        if status != "finished":
            continue
        print(f"{name}, lam {lams[name]:g}:", flush=True)
        networks[name] = network
        known = broken_at(read_parquet(before)).unstack("norm").loc[chosen.index.tolist()]
        broken[name] = {norm: torch.from_numpy(known[norm].to_numpy(copy=True)) for norm in known}
        for norm in known:
            add(name, norm, BEFORE)
        # The records stay: a new lam of any regularizer repeats the selection, and with it this job,
        # although the lam selected is mostly the same.
        depends = [*source_files(__file__), data, path, before]
        records = Records(
            images.with_name("attacks") / dataset / name,
            fingerprint(settings | {"cells": [entry]}, where, depends),
        )
        for attack, record in run_attacks(
            network,
            chosen.images,
            chosen.labels,
            attacks,
            epsilons=epsilons,
            seed=seed,
            records=records,
            broken_at=broken[name],
        ):
            of = broken[name]
            of[attack.norm] = torch.minimum(of[attack.norm], record.epsilon_found)
            add(name, attack.norm, attack.attack)

    for norm in next(iter(broken.values()), {}):
        for epsilon in epsilons[norm]:
            matrix, fooled = transfer_examples(networks, chosen, norm, epsilon, seed)
            matrices.append(matrix.assign(dataset=dataset, norm=norm, epsilon=epsilon))
            for name in networks:
                at = torch.full(fooled[name].shape, math.inf, dtype=torch.float64)
                at[fooled[name]] = epsilon  # rounded to float32, it would miss its epsilon
                broken[name][norm] = torch.minimum(broken[name][norm], at)
        for name in networks:
            add(name, norm, "transfer")
    table = pd.concat(tables) if tables else empty_table(COLUMNS)
    write_atomically(images, table[COLUMNS].to_parquet(index=False))
    matrix = pd.concat(matrices) if matrices else pd.DataFrame(columns=TRANSFER)
    write_atomically(transfer, matrix[TRANSFER].to_csv(index=False))


if __name__ == "__main__":
    run(main)
