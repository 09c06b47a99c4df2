"""The scores of docs/default_model.md, as Markdown, of reports that `evaluate` wrote.

python docs/make_table.py reports/s1 reports/seen reports/unseen
"""

import json
import pathlib
import sys

NAMES = {
    "at": "AT-net",
    "at_shuffled": "another clip's sound",
    "at_static": "the photo",
    "at_mean": "the mean face",
    "teacher": "true landmarks",
    "end_to_end": "from the sound",
    "end_to_end_shuffled": "another clip's sound",
    "static": "the photo",
    "real": "real frames",
}
AT, ALONE = ("at", "at_shuffled", "at_static", "at_mean"), ("at", "at_shuffled")
DRAWN = ("teacher", "end_to_end", "end_to_end_shuffled")
ROWS = (  # heading, metric, its modes, decimals
    ("mouth LMD, px", "lmd", AT, 2),
    ("r of the opening", "r", ALONE, 2),
    ("jitter / real", "jitter_ratio", ("at",), 2),
    ("mouth LMD of points found again, px", "lmd", (*DRAWN, "static", "real"), 2),
    ("r of the opening, found again", "r", (*DRAWN, "real"), 2),
    ("mouth PSNR, dB", "mouth_psnr", (*DRAWN, "static"), 1),
    ("mouth SSIM", "mouth_ssim", (*DRAWN, "static"), 3),
    ("sharpness of the mouth / real", "mouth_sharpness", DRAWN, 2),
    ("CSIM-dlib", "csim_dlib", (*DRAWN, "real"), 3),
)
RATIOS = (  # heading, mode, the mode whose error it is a share of
    ("AT-net's mouth LMD against the photo's", "at", "at_static"),
    ("another clip's sound's", "at_shuffled", "at_static"),
    ("found again, from the sound, against the photo's", "end_to_end", "static"),
    ("another clip's sound's", "end_to_end_shuffled", "static"),
)


def main(folders: list[str]) -> None:
    reports = [
        json.loads((pathlib.Path(folder) / "summary.json").read_text())
        for folder in folders
    ]
    heads = [
        f"{pathlib.Path(folder).name} ({report['clips']} clips)"
        for folder, report in zip(folders, reports, strict=True)
    ]
    scores = [report["overall"] for report in reports]
    lines = [["", *heads], ["---"] * (1 + len(heads))]
    for heading, metric, modes, decimals in ROWS:
        for mode in modes:
            cells = [cell(report[mode][metric], decimals) for report in scores]
            lines.append([f"{heading}: {NAMES[mode]}", *cells])
    for heading, mode, doing_nothing in RATIOS:
        change = [
            r[mode]["lmd"]["mean"] / r[doing_nothing]["lmd"]["mean"] - 1 for r in scores
        ]
        lines.append([heading, *(f"{x:+.0%}" for x in change)])
    print("\n".join("| " + " | ".join(line) + " |" for line in lines))


def cell(score: dict[str, float], decimals: int) -> str:
    """Mean and its interval."""
    mean, low, high = (f"{score[k]:.{decimals}f}" for k in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main(sys.argv[1:])
