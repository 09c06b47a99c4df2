"""What a prepared dataset holds: a table, a contact sheet, one example's plot.

    python main.py inspect --data_dir=DATA --out=inspected

Writes contact_sheet.png and example.png, and prints how many clips, speakers and
minutes every split has.
"""

from jax_atvg.cli.flags import Flags, Given, refuse_out_as_input


def flags(add: Flags) -> None:
    add.path("data_dir", "The dataset that `prepare` wrote.", required=True)
    add.path(
        "out",
        "The folder for both pictures.",
        shown="the folder inspect of the dataset",
    )
    add.text("split", "Whose clips are shown.", "train", kind="SPLIT")
    add.number("index", "Which of them is plotted, counted from 0.", 0)


def run(given: Given) -> int:
    refuse_out_as_input(given, "data_dir")
    from input_pipeline.training_data import inspection

    out = given.out or inspection.default_folder(given.data_dir)
    print(inspection.inspect(given.data_dir, given.split, given.index, out))
    print(f"wrote {out}/contact_sheet.png {out}/example.png")
    return 0
