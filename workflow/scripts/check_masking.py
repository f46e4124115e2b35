"""Check one trained cell for gradient masking, on a part of its attacked images."""

import argparse
import json
from pathlib import Path

import pandas as pd
import torch

from input_hessian.experiment.attacks import AttackSettings
from input_hessian.experiment.datasets import evaluation_subset, load
from input_hessian.experiment.devices import configure
from input_hessian.experiment.errors import run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.masking import check_masking
from input_hessian.experiment.models import load_model


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=json.loads, required=True, help="what to do, as JSON")
    parser.add_argument("--data", type=Path, required=True, help="safetensors of prepare_dataset")
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--images", type=Path, required=True, help="per image, of attack, parquet")
    parser.add_argument("--device", required=True, help="auto, cpu, cuda or mps")
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="output, JSON")
    args = parser.parse_args()

    device = configure(args.device, args.threads)
    cell = args.settings["cell"]
    model, status = load_model(args.model, device)
    checks = []
    if status == "finished":
        test = load(args.data, "test")
        chosen = torch.from_numpy(evaluation_subset(args.settings["images"], len(test.labels)))
        verdicts = pd.read_parquet(args.images)
        verdicts = verdicts[verdicts["index"].isin(test.index[chosen].tolist())]
        attacks = [AttackSettings(**attack) for attack in args.settings["attacks"]]
        checks = check_masking(
            model,
            test.images[chosen],
            test.labels[chosen],
            verdicts,
            {attack.norm: attack for attack in attacks if attack.attack == "pgd"},
            args.settings["headline"],
            seed=cell["seed"],
        )
    rows = [{**cell, **check._asdict(), "flagged": check.flagged} for check in checks]
    write_atomically(args.output, json.dumps(rows, indent=2) + "\n")
    for check in checks:
        print(f"{'FLAGGED' if check.flagged else 'passed':8}{check.check:16}{check.value:.4g}")


if __name__ == "__main__":
    run(main)
