"""Select one lam per dataset and regularizer, by validation images alone."""

import pandas as pd

from input_hessian.experiment.cells import cell_folders
from input_hessian.experiment.command import Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_json
from input_hessian.experiment.results import select
from input_hessian.experiment.table_text import NORMS
from input_hessian.experiment.tables import CELL


def main(*, settings: Settings, selection: Output) -> None:
    rows = []
    for folder in cell_folders(settings["grid"]):
        validation = read_json(folder / "validation.json")
        robust = {
            norm: sum(radii.values()) / len(radii)
            for norm, radii in validation["robust_accuracy"].items()
        }
        every = [v for radii in validation["robust_accuracy"].values() for v in radii.values()]
        rows.append(
            {key: validation[key] for key in [*CELL, "status"]}
            | {"validation_accuracy": validation["accuracy"]}
            | {f"validation_{norm}": robust.get(norm) for norm in NORMS}
            | {"validation_robust_accuracy": sum(every) / len(every) if every else None}
        )
    table = select(pd.DataFrame(rows), settings["max_clean_loss"])
    write_atomically(selection, table.to_csv(index=False))
    print(table[table["selected"]].to_string(index=False))


if __name__ == "__main__":
    run(main)
