"""Copy the network of every regularizer at its selected lam, first seed."""

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.tables import selected_lams


def main(
    selection: Input, models: list[Input], *, settings: Settings, networks: list[Output]
) -> None:
    targets = {
        (entry["dataset"], entry["regularizer"]): i for i, entry in enumerate(settings["networks"])
    }
    for cell, model in zip(settings["cells"], models, strict=True):
        dataset, name = cell["dataset"], cell["regularizer"]
        if selected_lams(selection, dataset)[name] == cell["lam"]:
            write_atomically(networks[targets[dataset, name]], model.read_bytes())


if __name__ == "__main__":
    run(main)
