"""Make the positive control of the masking checks: a network whose softmax is saturated.

Its last layer is scaled by 10^4.  Every prediction, and so the true robustness, is the network's;
but the cross-entropy's gradient underflows to zero in float32, and attacks on it are blind.
"""

import argparse
import json
from pathlib import Path

import torch
from safetensors import safe_open

from input_hessian.experiment.errors import run
from input_hessian.experiment.models import load_model, save_model

SCALE = 1e4


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="safetensors of train")
    parser.add_argument("--output", type=Path, required=True, help="output, safetensors")
    args = parser.parse_args()
    model, status = load_model(args.model)
    with safe_open(args.model, framework="pt") as file:
        settings = json.loads(file.metadata()["model"])
    del settings["status"]
    last = [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]
    last.weight *= SCALE
    last.bias *= SCALE
    save_model(model, settings, args.output, status)


if __name__ == "__main__":
    run(main)
