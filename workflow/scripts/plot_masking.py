"""The checks for gradient masking: what each found for every cell, and for the masked control."""

import seaborn as sns

from input_hessian.experiment import plotting
from input_hessian.experiment.command import Input, Output, run
from input_hessian.experiment.tables import read_table

TITLES = {
    "single_step": "FGSM breaks it,\nPGD does not",
    "more_steps": "twice the steps\nbreak it, PGD not",
    "black_box": "Square breaks it,\nno gradient did",
    "huge_epsilon": "withstands\n" r"$\ell_\infty$ 0.5",
    "zero_gradients": "gradient exactly\nzero",
    "pgd_gap": "APGD breaks it,\nPGD does not",
}


def main(masking: Input, *, png: Output, pdf: Output) -> None:
    table = read_table(masking)
    table = table[table["check"].isin(list(TITLES))]
    if table.empty:
        return plotting.nothing_to_draw(png, pdf)
    table = table.assign(
        value=100 * table["value"],
        dataset=table["dataset"].map(plotting.dataset_title),
    )
    names, datasets = list(table["regularizer"].unique()), list(table["dataset"].unique())
    place = {"x": "value", "y": "regularizer", "order": names, "hue": "dataset"}
    place |= {"hue_order": datasets, "palette": "colorblind", "dodge": True, "jitter": False}
    grid = sns.catplot(
        table,
        kind="strip",
        col="check",
        col_order=[check for check in TITLES if check in set(table["check"])],
        marker="$\\circ$",
        height=0.28 * len(names) + 1.4,
        aspect=1.6 / (0.28 * len(names) + 1.4),
        legend_out=False,
        **place,
    )
    for check, axes in grid.axes_dict.items():
        found = table[table["check"] == check]
        axes.axvline(100 * found["threshold"].max(), color="0.3", lw=0.8, ls=":")
        sns.stripplot(found[found["flagged"]], ax=axes, legend=False, **place)
        axes.set_xscale("symlog", linthresh=0.5, linscale=0.5)
        axes.set_xlim(-0.15, 160)
        axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.minorticks_off()
        axes.set_title(TITLES[check], fontsize=8)
    grid.set_axis_labels("Images (%)", "")
    title = "Checks for gradient masking, a circle per network\ndotted: threshold; filled: flagged"
    plotting.save(grid.figure, [png, pdf], title, plotting.legend_handles(grid))


if __name__ == "__main__":
    run(main)
