"""Prints the score tables of docs/default_model.md, as Markdown.

python docs/make_table.py reports/s1 reports/seen reports/unseen

Each argument is the folder of a report that `python main.py evaluate` wrote.  It
becomes a column, headed by the folder's name and its number of clips.  A cell holds the
mean over the clips and the 95 % bootstrap interval of that mean.
"""

import argparse
import json
import pathlib
from collections.abc import Sequence
from typing import Any

NAMES = {  # mode of an evaluation (see jax_atvg/evaluation/evaluate.py): row of a table
    "at": "AT-net",
    "at_shuffled": "another clip's sound",
    "at_static": "still photo",
    "at_mean": "mean face",
    "teacher": "true landmarks",
    "end_to_end": "from the sound",
    "end_to_end_shuffled": "another clip's sound",
    "static": "still photo",
    "real": "real frames",
}
AT, HEARD = ("at", "at_shuffled", "at_static", "at_mean"), ("at", "at_shuffled")
DRAWN = ("teacher", "end_to_end", "end_to_end_shuffled")
TABLES = {  # heading: (score in words, its name in the report, modes, decimals)
    "Landmarks that AT-net predicts, against the true ones": (
        ("mouth LMD, px", "lmd", AT, 2),
        ("correlation of lip opening", "r", HEARD, 2),
        ("closing, px", "closing", HEARD, 2),
        ("jitter / real", "jitter_ratio", ("at",), 2),
    ),
    "Landmarks detected in the generated frames": (
        ("mouth LMD, px", "lmd", (*DRAWN, "static", "real"), 2),
        ("correlation of lip opening", "r", (*DRAWN, "real"), 2),
        ("closing, px", "closing", DRAWN, 2),
    ),
    "Pixels of the mouth, and identity": (
        ("mouth PSNR, dB", "mouth_psnr", (*DRAWN, "static"), 1),
        ("mouth SSIM", "mouth_ssim", (*DRAWN, "static"), 3),
        ("mouth sharpness / real", "mouth_sharpness", DRAWN, 2),
        ("checkerboard / real", "checkerboard", DRAWN, 2),
        ("CSIM-dlib", "csim_dlib", (*DRAWN, "real"), 3),
    ),
}
CHANGES = {  # row: (mode, the mode that does nothing)
    "predicted by AT-net": ("at", "at_static"),
    "predicted by AT-net, another clip's sound": ("at_shuffled", "at_static"),
    "detected in the frames, from the sound": ("end_to_end", "static"),
    "detected in the frames, another clip's sound": ("end_to_end_shuffled", "static"),
}


def main(folders: Sequence[pathlib.Path]) -> None:
    reports = [json.loads((path / "summary.json").read_text()) for path in folders]
    heads = [
        f"{path.name} ({report['clips']} clips)"
        for path, report in zip(folders, reports, strict=True)
    ]
    scores = [report["overall"] for report in reports]
    for heading, groups in TABLES.items():
        print(f"**{heading}**\n")
        print_row("", heads)
        print_row("---", ["---"] * len(heads))
        for words, metric, modes, decimals in groups:
            for mode in modes:
                # Reports of --end_to_end_only lack some.
                found = [score.get(mode, {}).get(metric) for score in scores]
                cells = ["" if x is None else cell(x, decimals) for x in found]
                print_row(f"{words}: {NAMES[mode]}", cells)
        print()
    print("**Mouth LMD, relative to that of the still photo**\n")
    print_row("", heads)
    print_row("---", ["---"] * len(heads))
    for words, (mode, still) in CHANGES.items():
        print_row(words, [change(score, mode, still) for score in scores])


def print_row(name: str, cells: Sequence[str]) -> None:
    print("| " + " | ".join([name, *cells]) + " |")


def cell(score: dict[str, float], decimals: int) -> str:
    """The mean and its interval."""
    mean, low, high = (f"{score[k]:.{decimals}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def change(scores: dict[str, Any], mode: str, still: str) -> str:
    """By how much the mean error of a mode differs from that of doing nothing."""
    if mode not in scores:
        return ""
    return f"{scores[mode]['lmd']['mean'] / scores[still]['lmd']['mean'] - 1:+.0%}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "reports", nargs="+", type=pathlib.Path, help="folder of a report"
    )
    main(parser.parse_args().reports)
