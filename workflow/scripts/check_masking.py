"""Check one trained cell for gradient masking, on a part of its attacked images."""

import json

from input_hessian.experiment.attacks import AttackSettings
from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.data import evaluation_images
from input_hessian.experiment.devices import configure
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.masking import check_masking
from input_hessian.experiment.models import load_model
from input_hessian.experiment.readers import read_parquet


def main(
    data: Input,
    model: Input,
    images: Input,
    *,
    settings: Settings,
    device: str,
    threads: int,
    masking: Output,
) -> None:
    cell = settings["cell"]
    network, status = load_model(model, configure(device, threads))
    checks = []
    if status == "finished":
        chosen = evaluation_images(data, settings["images"])
        verdicts = read_parquet(images)
        verdicts = verdicts[verdicts["index"].isin(chosen.index.tolist())]
        attacks = [AttackSettings(**attack) for attack in settings["attacks"]]
        checks = check_masking(
            network,
            chosen.images,
            chosen.labels,
            verdicts,
            {attack.norm: attack for attack in attacks if attack.attack == "pgd"},
            settings["headline"],
            queries=settings["queries"],
            seed=cell["seed"],
        )
    rows = [{**cell, **check._asdict(), "flagged": check.flagged} for check in checks]
    write_atomically(masking, json.dumps(rows, indent=2) + "\n")
    for check in checks:
        print(f"{'FLAGGED' if check.flagged else 'passed':8}{check.check:16}{check.value:.4g}")


if __name__ == "__main__":
    run(main)
