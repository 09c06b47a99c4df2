"""A folder of talking-face videos becomes a dataset.

    python main.py prepare --corpus=grid --source=GRID --data_dir=DATA

Interrupted, it goes on where it was; the result does not depend on that.  What is left
out is listed with the reason.
"""

import os

from jax_atvg.cli.flags import (
    Flags,
    Given,
    bundle_flag,
    chosen_template,
    template_flags,
)

CORPORA = ("grid", "lrw", "folder", "portraits")
SYNC = ("off", "check", "fix")


def flags(add: Flags) -> None:
    add.choice(
        "corpus",
        CORPORA,
        "What the files are: GRID, LRW, any videos of one face each, in folders that "
        "are called as the speakers, or photos, whose lips are moved as those of the "
        "videos in --data_dir.",
        required=True,
    )
    add.path("source", "The folder with the videos or photos.", required=True)
    add.path("data_dir", "Where datasets are kept; it is written there.", required=True)
    add.number("workers", "Processes.", least=1, shown="one a core")
    add.text(
        "split_rule",
        "What is held out: by_speaker (not LRW), by_sentence (GRID), by_clip (folder), "
        "by_name (portraits), own (LRW: as it says itself).",
        kind="RULE",
    )
    add.word_list("test_speakers", "Held out by --split_rule=by_speaker, as s3,s20.")
    add.word_list(
        "validation_clips",
        "Validation clips of --split_rule=by_speaker, by patterns of their names, as "
        "'s1/p*'; of every other speaker with six clips or more, the last two.",
    )
    add.seconds("max_seconds", "A folder's longer videos are cut.", 10.0, least=1.0)
    add.choice(
        "several_faces",
        ("reject", "largest"),
        "What to do where several faces are seen: leave the clip out, or follow the "
        "largest.",
        "reject",
    )
    add.choice(
        "sync",
        SYNC,
        "What to do with sound out of step, which a bundle's AT-net hears: nothing; "
        "leave out files whose sound is more than a frame early or late, or cannot be "
        "judged; or move such sound by whole frames, where it can be judged.",
        "off",
    )
    bundle_flag(add)
    template_flags(add)
    add.number(
        "limit", "Only the first so many files, for a trial; 0 for all.", 0, least=0
    )
    add.choice(
        "runner",
        ("local", "beam"),
        "Processes on this machine, or Apache Beam (docs/prepare_at_scale.md).",
        "local",
    )
    add.word_list(
        "beam_options", "Beam's own options, as runner=FlinkRunner,parallelism=64."
    )


def run(given: Given) -> int:
    from input_pipeline.preparation import recording
    from input_pipeline.preparation.prepare import prepare

    listener = None
    if given.sync != "off":
        from jax_atvg.evaluation.listening import BundleListener

        listener = BundleListener(str(given.bundle))
        listener.key()  # reads the bundle: if there is none, say so now
        # AT-net is small, and every worker would reserve an accelerator's memory.
        os.environ["JAX_PLATFORMS"] = "cpu"
    prepare(
        given.corpus,
        given.source,
        given.data_dir,
        recording.Options(
            given.max_seconds,
            given.several_faces,
            chosen_template(given),
            sync=given.sync,
        ),
        split_rule=given.split_rule or "",
        test_speakers=given.test_speakers,
        validation_clips=given.validation_clips,
        limit=given.limit,
        num_workers=given.workers,
        runner=given.runner,
        beam_options=given.beam_options,
        listener=listener,
    )
    return 0
