"""What a precision costs in quality: the same weights, and the same run, in each.

    python benchmarks/precision.py --data_dir=DATA
    python benchmarks/precision.py --data_dir=DATA --steps=0 --limit=0  # all clips

Scores: `evaluate` of a bundle in every precision, and the mean over clips of score -
score in float32, with its 95 % bootstrap interval.  Losses: `train` of the configs
at_small and vg_small from the same seed on the same examples, the mean of the last
fifth of the steps, and the validation clips' at the end; vg_small has the discriminator
in the second half of the steps.

`default` multiplies factors of 10 bits after the point on GPUs (TF32), of 7 on TPUs.
For machines that are neither, the rows "as TF32" and "as on a TPU" round the factors of
every layer by hand; gradients that come from above are not rounded.  Every row is a
process of its own.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks.measuring import check_flags, machine, table  # noqa: E402

ROWS = {  # name: (config.precision, bits after the point of rounded factors)
    "highest": ("highest", None),
    "default": ("default", None),
    "default, as TF32": ("default", 10),
    "default, as on a TPU": ("default", 7),
    "bfloat16": ("bfloat16", None),
}
SCORES = {  # heading: (mode, metric)
    "LMD px, from sound": ("at", "lmd"),
    "PSNR dB, true landmarks": ("teacher", "psnr"),
    "mouth PSNR dB": ("teacher", "mouth_psnr"),
    "LMD px, of frames": ("end_to_end", "lmd"),
}
CONFIGS = "at_small", "vg_small"


# --- one row, in a process of its own ---


def round_factors(bits: int) -> None:
    """Has every layer round what it multiplies."""
    import jax

    from jax_atvg.models import convolutions, layers, lstm

    factors = layers.in_kernels_precision

    def rounded(x, kernel):
        return tuple(
            jax.lax.reduce_precision(one, exponent_bits=8, mantissa_bits=bits)
            for one in factors(x, kernel)
        )

    layers.in_kernels_precision = lstm.in_kernels_precision = rounded
    convolutions.form_for = lambda platform: "native"  # that of GPUs and TPUs


def scores(given: argparse.Namespace, precision: str) -> dict[str, list[float]]:
    """{heading: the score of every clip}."""
    from jax_atvg.evaluation.evaluate import evaluate

    with tempfile.TemporaryDirectory() as folder:
        results = evaluate(
            given.bundle,
            str(given.data_dir),
            pathlib.Path(folder) / "report",
            split=given.split,
            limit=given.limit,
            precision=precision,
        )
    return {
        heading: [row[metric] for row in results.rows if row["mode"] == mode]
        for heading, (mode, metric) in SCORES.items()
    }


def losses(given: argparse.Namespace, precision: str, config: str) -> dict[str, float]:
    """The losses at the end of a run."""
    import importlib

    from jax_atvg.training.train import train

    experiment = importlib.import_module(f"configs.{config}").get_config()
    experiment.precision, experiment.steps = precision, given.steps
    experiment.gan_loss.pixel_steps = given.steps // 2
    experiment.report_every = max(given.steps // 5, 1)
    experiment.validate_every = experiment.save_every = given.steps
    experiment.image_every = given.steps
    experiment.data.num_workers, experiment.data.validation_clips = 0, 16
    with tempfile.TemporaryDirectory() as folder:
        train(experiment, folder, given.data_dir, progress=False)
        lines = (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        found |= json.loads(line)
    return {
        f"{config} {name}": value
        for name, value in found.items()
        if name.startswith(("at/", "vg/", "disc/", "validation/"))
    }


def row(given: argparse.Namespace) -> dict[str, Any]:
    """The figures of the row that --row names."""
    from jax_atvg.cli.machine import set_up_jax

    set_up_jax()
    precision, bits = ROWS[given.row]
    if bits:
        round_factors(bits)
    found: dict[str, Any] = {"scores": scores(given, precision), "losses": {}}
    for config in CONFIGS if given.steps else ():
        found["losses"] |= losses(given, precision, config)
    return found


# --- all rows ---


def measure(given: argparse.Namespace, words: Sequence[str]) -> dict[str, dict]:
    """{name of a row: its figures}."""
    found = {}
    for name in given.rows:
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "row.json"
            command = [sys.executable, __file__, *words, f"--row={name}"]
            subprocess.run([*command, f"--json={out}"], check=True, env=os.environ)
            found[name] = json.loads(out.read_text())
        print(f"{name}: done", file=sys.stderr, flush=True)
    return found


def difference(these: list[float], those: list[float]) -> str:
    """The mean of the differences with its interval, as "-.001 (-.002, .001)"."""
    import numpy as np

    from jax_atvg.evaluation.confidence import bootstrap

    apart = np.subtract(these, those, dtype=np.float64)
    (of,) = bootstrap(apart[:, None])
    return f"{of['mean']:+.4f} ({of['low']:+.4f}, {of['high']:+.4f})"


def tables(found: dict[str, dict]) -> str:
    """Scores with their differences to the first row's, then losses."""
    import numpy as np

    first, lines, text = next(iter(found.values())), [], []
    for name, figures in found.items():
        line = {"precision": name, "clips": len(next(iter(figures["scores"].values())))}
        for heading, values in figures["scores"].items():
            line[heading] = f"{np.nanmean(values):.3f}"
            if figures is not first:
                line[heading] += f", {difference(values, first['scores'][heading])}"
        lines.append(line)
    text.append(table(lines, {name: (name, "") for name in lines[0]}))
    if first["losses"]:
        lines = [{"precision": name, **of["losses"]} for name, of in found.items()]
        headings = {name: (name, ".4f") for name in first["losses"]}
        text.append(table(lines, {"precision": ("precision", ""), **headings}))
    return "\n\n".join(text)


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    from jax_atvg.resources import DEFAULT_BUNDLE

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", type=pathlib.Path, required=True)
    parser.add_argument("--bundle", default=str(DEFAULT_BUNDLE))
    parser.add_argument("--split", default="validation")
    parser.add_argument("--limit", type=int, default=24, help="clips; 0: all")
    parser.add_argument("--steps", type=int, default=200, help="0: no training")
    parser.add_argument("--rows", default=";".join(ROWS), help="as 'highest;bfloat16'")
    parser.add_argument("--row", choices=ROWS, help="this row alone, in this process")
    parser.add_argument("--json", type=pathlib.Path, help="the figures are kept there")
    given = parser.parse_args(words)
    given.rows = given.rows.split(";")
    if unknown := [name for name in given.rows if name not in ROWS]:
        parser.error(f"--rows={';'.join(unknown)}: choose among {'; '.join(ROWS)}")
    if given.limit < 0 or given.steps < 0:
        parser.error(f"--limit={given.limit} --steps={given.steps}: 0 at least")
    check_flags(parser, given)
    return given


def main() -> None:
    given = arguments()
    if given.row:
        given.json.write_text(json.dumps(row(given)))
        return
    found = measure(given, sys.argv[1:])
    print(tables(found))
    if given.json:
        figures = {"machine": machine(), "rows": found}
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
