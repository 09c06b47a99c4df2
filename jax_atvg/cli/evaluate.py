"""A bundle's scores on a split of clips, as a folder with a report.

    python main.py evaluate --bundle=bundles/mine --data_dir=DATA --out=reports/mine

Every score stands beside those of the photo held still, of the mean face and of another
clip's sound.
"""

import warnings
from collections.abc import Mapping

from input_pipeline.clip import InputError
from jax_atvg.cli.console import say, say_what_runs, tell_compilations
from jax_atvg.cli.flags import (
    Flags,
    Given,
    bundle_flag,
    precision_flag,
    refuse_out_as_input,
)

SPLITS = ("train", "validation", "test")
PROTOCOLS = ("true", "atvg-compat")


def flags(add: Flags) -> None:
    add.path("data_dir", "The dataset that `prepare` wrote.", required=True)
    add.path("out", "The report's folder.", required=True)
    bundle_flag(add)
    precision_flag(add)
    add.choice("split", SPLITS, "Which clips.", "validation")
    add.word_list(
        "corpora",
        "Only their clips, as grid,portraits. Unless named: those of all videos, and "
        "no portraits.",
    )
    add.word_list("speakers", "Only their clips, as s1,s2.")
    add.number(
        "limit", "Only so many clips, evenly over the split; 0 for all.", 0, least=0
    )
    add.switch("landmarks_only", "AT-net alone, no frames: seconds, not minutes.")
    add.switch(
        "end_to_end_only",
        "Of the frames only those from the clip's own sound: two fifths of the time.",
    )
    add.switch("dub", "Also the clips dubbed, with their own and with other sound.")
    add.number(
        "workers",
        "Processes that score frames beside this one, which runs the networks; 0: "
        "none.",
        least=0,
        shown="one a core; none where there is one core",
    )
    add.choice(
        "protocol",
        PROTOCOLS,
        "true measures against the real frames; atvg-compat adds the authors' "
        "definitions of the scores.",
        "true",
    )


def run(given: Given) -> int:
    refuse_out_as_input(given, "data_dir", "bundle")
    for name in ("dub", "end_to_end_only"):
        if getattr(given, name) and given.landmarks_only:
            raise InputError(
                f"{name}: is of frames, of which --landmarks_only makes none; leave "
                "one of the two out"
            )
    from jax_atvg.cli.machine import set_up_jax

    set_up_jax()
    from input_pipeline import workers
    from input_pipeline.training_data import dataset
    from input_pipeline.training_data.fingerprint import (
        CLIPS,
        TEMPLATE,
        check_template,
        fingerprint,
    )
    from jax_atvg.evaluation import report
    from jax_atvg.evaluation.evaluate import evaluate
    from jax_atvg.inference.bundle import load_bundle

    tell_compilations()
    bundle = load_bundle(given.bundle)
    say_what_runs(networks=bundle.variables, precision=given.precision)
    found = fingerprint(given.data_dir, given.corpora)
    check_template(
        {TEMPLATE: bundle.alignment},
        found,
        f"{given.bundle}: the bundle was",
        "prepare the data with the bundle's --template",
    )
    if names := prepared_otherwise(bundle.data, found[CLIPS]):
        warnings.warn(
            f"{given.data_dir}: {', '.join(names)} was prepared otherwise than what "
            f"{given.bundle} was trained on, which may hold clips of the split "
            f"{given.split}; give the --data_dir of the training",
            stacklevel=2,
        )
    clips = dataset.open_clips(given.data_dir, given.split, given.corpora)
    say(f"data: {given.data_dir}, {len(clips)} clips of the split {given.split}")
    count = given.workers
    if count is None:
        count = workers.cores() if workers.cores() > 1 else 0
    results = evaluate(
        bundle,
        clips,
        given.out,
        protocol=given.protocol,
        speakers=given.speakers,
        limit=given.limit,
        landmarks_only=given.landmarks_only,
        end_to_end_only=given.end_to_end_only,
        dub=given.dub,
        workers=count,
        precision=given.precision,
        title=f"{given.bundle} on {given.split}",
        progress=True,
    )
    print(report.plain_text(results))
    print(f"wrote {given.out}/report.html")
    return 0


def prepared_otherwise(
    before: Mapping[str, str] | None, now: Mapping[str, str]
) -> list[str]:
    """The corpora that a bundle knows, but not as they are now.

    before, now: {corpus: hash}, see fingerprint.py; None: not known.
    """
    return [name for name in now if before and before.get(name, now[name]) != now[name]]
