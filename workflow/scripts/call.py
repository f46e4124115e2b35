"""Call several scripts in one process, which imports only once what they share."""

from importlib import import_module

from input_hessian.experiment.command import Settings, call, run


def main(*, settings: Settings) -> None:
    for entry in settings["calls"]:
        print(f"{entry['script']}:", flush=True)
        call(import_module(entry["script"]).main, entry["words"], entry["settings"])


if __name__ == "__main__":
    run(main)
