"""Writes the report of an evaluation: tables, plots and pictures, in one folder.

Its files are clips.csv, clips.json, summary.json, report.html, and report.md with its
pictures.
"""

import base64
import csv
import html
import io
import json
import math
import pathlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from input_pipeline.clip import InputError
from input_pipeline.files import check_place, replacing
from jax_atvg.evaluation.confidence import LAGS, columns, summarise
from jax_atvg.evaluation.metrics import PROTOCOLS
from jax_atvg.evaluation.scores import SAMPLE_EVERY

MOST_BARS = 40  # speakers that the plot shows

AT_MODES = ("at", "at_shuffled", "at_static", "at_mean")
DUBBED = ("dub", "dub_shuffled")
FRAME_MODES = (
    *("teacher", "end_to_end", "end_to_end_shuffled", "static", "real"),
    *DUBBED,
)
POINTS = {
    "lmd": "LMD px ↓",
    "lmd_to_static": "LMD / static ↓",
    "f_lmd": "F-LMD px ↓",
    "r": "r of opening ↑",
    "velocity_error": "velocity error px/frame ↓",
    "jitter_ratio": "jitter / real (1)",
    "closing": "closed lips too far open px (0)",
}
PIXELS = {
    "psnr": "PSNR dB ↑",
    "ssim": "SSIM ↑",
    "cpbd": "CPBD ↑",
    "mouth_psnr": "mouth PSNR ↑",
    "mouth_ssim": "mouth SSIM ↑",
    "mouth_sharpness": "mouth sharpness / real (1)",
    "checkerboard": "mouth checkerboard / real (1)",
    "flicker": "flicker / real (1)",
    "mouth_flicker": "mouth flicker / real (1)",
    "csim_dlib": "CSIM-dlib ↑",
}
COMPAT = {
    f"compat/{name}": f"{name} (atvg-compat)"
    for metrics in PROTOCOLS["atvg-compat"]
    for name in metrics
}
TABLES = {  # heading -> modes, metrics
    "Landmarks from sound (AT-net), against the true ones": (AT_MODES, POINTS),
    "Frames: pixels and identity": (FRAME_MODES, PIXELS),
    "Frames: points found again on them, against those on the real frames": (
        FRAME_MODES,
        POINTS,
    ),
    "The authors' definitions (compare with theirs only)": (FRAME_MODES, COMPAT),
}
STRIP_ROWS = "rows real, end_to_end, attention (and teacher, dub)"
HOW_TO_READ = (
    "The photo is each clip's first frame and is not scored. static: the photo, "
    "repeated; at_mean: the mean face, repeated; shuffled: made with the sound of "
    "another clip, so that whatever is better with the right sound comes from it; "
    "dub: the clip with its lips redrawn; "
    "real: points found again on the real frames, against the true landmarks: the "
    "detector's error, below which an LMD of frames means nothing. LMD: error of the "
    "mouth's points in pixels of the 128x128 crop. r: correlation of the inner lips' "
    "opening. Closed lips: how much further apart these are where the true ones are "
    "less than 1 px apart. Checkerboard: what alternates from pixel to pixel both "
    "ways. Flicker: how unsteadily brightness changes from frame to frame. CPBD and "
    f"CSIM-dlib are those of every {SAMPLE_EVERY}th frame. Brackets: "
    "95 % bootstrap interval over clips."
)


class Results(NamedTuple):
    """The results of an evaluation.

    rows: one per clip and mode, with confidence.NAMES and the metrics.  about: title,
    protocol, number of clips, batch size, speed, device.  strips: (title, picture
    u8[H,W,3]).
    """

    rows: list[dict[str, Any]]
    about: dict[str, Any]
    strips: list[tuple[str, np.ndarray]]


# --- the folder ---


def check_out(out: str | pathlib.Path) -> None:
    """Checks that a report can be written there.

    InputError: the path exists and is no report, or it cannot be written.
    """
    out = pathlib.Path(out)
    ours = (out / "summary.json").is_file() and (out / "report.html").is_file()
    if out.exists() and not ours:
        raise InputError(f"{out}: exists and is no report; choose another folder")
    try:
        check_place(out, parents=True)
    except OSError as error:
        raise unwritable(out, error) from error


def unwritable(out: pathlib.Path, error: OSError) -> InputError:
    return InputError(
        f"{out}: cannot be written ({error.strerror}); choose another folder or make "
        "room"
    )


def write_report(results: Results, out: str | pathlib.Path) -> None:
    """Writes the report's folder, complete or not at all; replaces an older report.

    InputError: see check_out.
    """
    check_out(out)
    out = pathlib.Path(out)
    summary = summarise(results.rows)
    pictures = plots(summary)
    pictures |= {name: png_of(strip) for name, strip in results.strips}
    try:
        with replacing(out) as folder:
            folder.mkdir()
            write_csv(folder / "clips.csv", results.rows)
            write_json(folder / "clips.json", results.rows)
            write_json(folder / "summary.json", {**results.about, **summary})
            files = zip(picture_files(pictures), pictures.values(), strict=True)
            for file, png in files:
                (folder / file).write_bytes(png)
            text = markdown(results, summary, pictures)
            (folder / "report.md").write_text(text, "utf-8")
            text = page(results, summary, pictures)
            (folder / "report.html").write_text(text, "utf-8")
    except OSError as error:
        raise unwritable(out, error) from error


def write_csv(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns(rows))
        writer.writeheader()
        writer.writerows(finite(rows))


def write_json(path: pathlib.Path, tree: Any) -> None:
    path.write_text(json.dumps(finite(tree), indent=1, allow_nan=False) + "\n", "utf-8")


def finite(tree: Any) -> Any:
    """Replaces NaN and infinities, which JSON does not have, by None."""
    if isinstance(tree, dict):
        return {name: finite(value) for name, value in tree.items()}
    if isinstance(tree, list):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


# --- tables ---


def tables(summary: dict[str, Any]) -> Iterable[tuple[str, list[list[str]]]]:
    """The tables: (heading, rows of cells), of which the first names the columns."""
    overall = summary["overall"]
    for heading, (modes, metrics) in TABLES.items():
        shown = [
            m for m in metrics if any(m in overall.get(mode, ()) for mode in modes)
        ]
        if shown:
            body = [
                [mode, *(cell(overall[mode].get(m)) for m in shown)]
                for mode in modes
                if mode in overall
            ]
            yield heading, [["", *(metrics[m] for m in shown)], *body]


def cell(interval: dict[str, float] | None) -> str:
    if interval is None or not math.isfinite(interval["mean"]):
        return "-"
    return "{mean:.3g} [{low:.3g}, {high:.3g}]".format(**interval)


def about_line(results: Results) -> str:
    return ", ".join(f"{k} {v}" for k, v in results.about.items() if k != "title")


def picture_files(pictures: Iterable[str]) -> list[str]:
    """The names of the files in which report.md looks for the pictures."""
    return [f"picture_{i}.png" for i, _ in enumerate(pictures)]


def markdown(
    results: Results, summary: dict[str, Any], pictures: dict[str, bytes]
) -> str:
    parts = [f"# {results.about['title']}", about_line(results), HOW_TO_READ]
    for heading, (names, *body) in tables(summary):
        lines = [names, ["---"] * len(names), *body]
        table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
        parts += [f"## {heading}", table]
    for heading, file in zip(pictures, picture_files(pictures), strict=True):
        parts += [f"## {heading}", f"![{heading}]({file})"]
    parts.append(f"Strips: {STRIP_ROWS}. Every clip: clips.csv.")
    return "\n\n".join(parts) + "\n"


def plain_text(results: Results) -> str:
    """The tables for a terminal, without intervals."""
    parts = [f"{results.about['title']}: {about_line(results)}"]
    for heading, rows in tables(summarise(results.rows)):
        rows = [rows[0], *([c.split(" [")[0] for c in row] for row in rows[1:])]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ("  ".join(map(str.rjust, row, widths)) for row in rows)
        parts.append("\n".join([heading, *lines]))
    return "\n\n".join(parts)


def page(results: Results, summary: dict[str, Any], pictures: dict[str, bytes]) -> str:
    """The report as HTML that needs no other file."""
    title = html.escape(results.about["title"])
    parts = [f"<h1>{title}</h1><p>{html.escape(about_line(results))}</p>"]
    parts.append(f"<p>{HOW_TO_READ}</p>")
    for heading, (names, *body) in tables(summary):
        head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
        lines = "".join(
            "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
            for row in body
        )
        parts.append(f"<h2>{heading}</h2><table><tr>{head}</tr>{lines}</table>")
    for heading, png in pictures.items():
        heading = html.escape(heading)
        parts.append(f"<h2>{heading}</h2>{inline(png, heading)}")
    parts.append(f"<p>Strips: {STRIP_ROWS}.</p>")
    style = (
        "body{font:15px sans-serif;margin:2em;max-width:75em}img{max-width:100%}"
        "td,th{padding:.2em .6em;border-bottom:1px solid #ccc;text-align:right}"
        "td:first-child{text-align:left}table{border-collapse:collapse}"
    )
    head = f'<meta charset="utf-8"><title>{title}</title><style>{style}</style>'
    return (
        f"<!doctype html><html><head>{head}</head><body>{''.join(parts)}</body></html>"
    )


# --- pictures ---


def inline(png: bytes, name: str) -> str:
    data = base64.b64encode(png).decode()
    return f'<img alt="{name}" src="data:image/png;base64,{data}">'


def png_of(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    import cv2

    return cv2.imencode(".png", np.ascontiguousarray(picture[..., ::-1]))[1].tobytes()


def plots(summary: dict[str, Any]) -> dict[str, bytes]:
    """The plots, {heading: PNG}: correlation over lag, and mouth LMD by speaker."""
    from matplotlib.figure import Figure  # no pyplot: no display, no global state

    overall, speakers = summary["overall"], summary["speakers"]
    heard = [mode for mode in ("at", "end_to_end") if mode in overall]
    lags = Figure(figsize=(4.5 * len(heard), 3.5), layout="constrained")
    panes = lags.subplots(1, len(heard), squeeze=False)[0]
    for axes, mode in zip(panes, heard, strict=True):
        for name in (mode, f"{mode}_shuffled"):
            if name in overall:
                curve = [overall[name][f"r_lag_{k:+d}"] for k in LAGS]
                mean, low, high = (
                    [c[part] for c in curve] for part in ("mean", "low", "high")
                )
                axes.plot(LAGS, mean, marker="o", label=name)
                axes.fill_between(LAGS, low, high, alpha=0.2)
        axes.set(xlabel="lag, frames (+: late)", ylabel="r of opening")
        axes.axhline(0, color="gray", lw=0.5)
        axes.legend()
    names = list(speakers)[:MOST_BARS]
    bars = Figure(figsize=(max(6, 0.5 * len(names) + 2), 3.5), layout="constrained")
    axes, modes = bars.subplots(), ("at", "at_shuffled", "at_static")
    if "end_to_end" in overall:
        modes = ("end_to_end", "end_to_end_shuffled", "static")
    for i, mode in enumerate(modes):
        found = [speakers[name].get(mode, {}).get("lmd") for name in names]
        height = [f["mean"] if f else math.nan for f in found]
        axes.bar(np.arange(len(names)) + 0.27 * (i - 1), height, 0.27, label=mode)
    axes.set_xticks(range(len(names)), names, rotation=90 if len(names) > 8 else 0)
    axes.set(ylabel="mouth LMD, px")
    bars.legend(loc="outside right")
    first = f", the first {MOST_BARS}" if len(speakers) > MOST_BARS else ""
    return {
        "Is the sound heard? r over lag": png_figure(lags),
        f"Mouth LMD by speaker{first}": png_figure(bars),
    }


def png_figure(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
