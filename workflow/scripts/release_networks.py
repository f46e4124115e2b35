"""Copy the networks of some regularizers at their selected lam, first seed, with a card that describes them."""

import pandas as pd
import yaml

from input_hessian.experiment.command import Input, Output, Settings, run
from input_hessian.experiment.files import write_atomically
from input_hessian.experiment.readers import read_json
from input_hessian.experiment.table_text import NORMS, dataset_title, percent
from input_hessian.experiment.tables import CELL, read_table, selected_lams

INTERVAL = ["robust_accuracy", "low", "high"]
HEAD = """\
# Model card

One network per data set and regularizer: the first seed, at the λ that validation images chose. They map
images `[B, channels, height, width]` with pixels in [0, 1] to logits:

```python
from input_hessian.experiment.models import load_model

network, status = load_model("{file}")
```

With `pip install '.[experiment]'` in a clone of the project. The data comes from `uv run snakemake data/{dataset}.safetensors`, with
the configuration of the run; its test images are

```python
from input_hessian.experiment.data import evaluation_images, load

test = load("data/{dataset}.safetensors", "test")
attacked = evaluation_images("data/{dataset}.safetensors", {attacked})
```

The numbers below were measured on these networks, not on the mean of their seeds."""
TAIL = """\
## Intended use

Research on robustness: to attack them by other methods, and to compare other training with them. They are not
meant to decide anything that matters.

## Limits

- Each was trained and tested on images of one data set; on others, nothing was measured.
- Robust accuracy is measured, not proved: it is an upper bound, and a stronger attack may break more
  images. Of other norms and larger radii, the tables say nothing.
- One of {seeds}: how much seeds differ stands in `../tables/summary.md`.
- The λ was chosen by accuracies on validation images, for these attacks; another aim may ask for another."""


def measured(record: dict, cells: pd.DataFrame, robustness: pd.DataFrame, radii: dict) -> dict:
    """Return a row of the card: the network, its accuracies in percent, with their 95% intervals."""
    cell = pd.DataFrame([record])[CELL]
    (trained,) = cells.merge(cell).to_dict("records")
    row = {"file": f"`{record['file']}`", "λ": f"{record['lam']:g}", "seed": record["seed"]}
    row |= {"commit": record["commit"], "status": record["status"]}
    if record["status"] != "finished":
        return row
    accuracies = {"clean": (trained["test_accuracy"], trained["test_low"], trained["test_high"])}
    attacked = robustness.merge(cell)
    for attack, suffix in (("worst", ""), ("pgd", ", PGD alone")):
        rows = attacked.loc[attacked["attack"] == attack, ["norm", "epsilon", *INTERVAL]]
        for found in rows.itertuples(False):
            if found.epsilon in radii.get(found.norm, ()):
                accuracies[f"{NORMS[found.norm]} {found.epsilon:g}{suffix}"] = found[2:]
    for measure, values in accuracies.items():
        mean, low, high = percent(pd.Series(values))
        row[measure] = f"{mean} [{low}, {high}]"
    return row


def card(records: list[dict], cells: pd.DataFrame, robustness: pd.DataFrame, headline: dict) -> str:
    """Return the card of the networks as Markdown.

    Args:
        records: what training wrote about each network, and its ``file``.
        cells: table of collect.
        robustness: likewise.
        headline: the radii, per dataset and norm.
    """
    first = {name: records[0][name] for name in ("file", "dataset")}
    attacked = robustness["n"].max() if len(robustness) else "..."
    blocks = [HEAD.format(**first, attacked=attacked)]
    for dataset, radii in headline.items():
        of_dataset = [record for record in records if record["dataset"] == dataset]
        rows = [measured(record, cells, robustness, radii) for record in of_dataset]
        attacked = robustness.merge(pd.DataFrame(of_dataset)[CELL])
        kinds = attacked[attacked["attack"] != "worst"]
        attacks = [
            f"{NORMS[norm]}: {', '.join(names.unique())}"
            for norm, names in kinds.groupby("norm", sort=False)["attack"]
        ]
        clean = cells.loc[cells["dataset"] == dataset, "test_images"].max()
        table = pd.DataFrame(rows).fillna("").to_markdown(index=False, disable_numparse=True)
        blocks += [
            f"## {dataset_title(dataset)}",
            f"Accuracy in percent, in brackets its 95% interval over the images (Wilson). Clean: all "
            f"{clean} test images. "
            + (
                f"Under attack: {attacked['n'].max()} of them; an image counts if it withstands every "
                f"attack of that norm at that ε ({'; '.join(attacks)})."
                if attacks
                else "Every network diverged; none was attacked."
            ),
            table,
        ]
    blocks.append("## Settings")
    for record in records:
        settings = {key: value for key, value in record["settings"].items() if key != "cell"}
        text = yaml.safe_dump(settings, sort_keys=False).strip()
        blocks.append(f"`{record['file']}`:\n\n```yaml\n{text}\n```")
    seeds = cells["seed"].nunique()
    blocks.append(TAIL.format(seeds=f"{seeds} seed{'s' * (seeds > 1)}"))
    return "\n\n".join(blocks) + "\n"


def main(
    selection: Input,
    models: list[Input],
    training: list[Input],
    cells: Input,
    robustness: Input,
    *,
    settings: Settings,
    networks: list[Output],
    card_file: Output,
) -> None:
    targets = {
        (entry["dataset"], entry["regularizer"]): path
        for entry, path in zip(settings["networks"], networks, strict=True)
    }
    records = []
    for cell, model, record in zip(settings["cells"], models, training, strict=True):
        dataset, name = cell["dataset"], cell["regularizer"]
        if selected_lams(selection, dataset)[name] == cell["lam"]:
            target = targets[dataset, name]
            write_atomically(target, model.read_bytes())
            records.append(read_json(record) | {"file": target.name})
    tables = read_table(cells), read_table(robustness)
    write_atomically(card_file, card(records, *tables, settings["headline"]))


if __name__ == "__main__":
    run(main)
