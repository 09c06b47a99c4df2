"""A face photo and a speech recording become a talking-face video.

    python main.py prepare --corpus=grid --source=VIDEOS --data_dir=DATA
    python main.py inspect --data_dir=DATA --out=FOLDER
    python main.py train --config=configs/vg_small.py --workdir=runs/vg --data_dir=DATA
    python main.py compile --config=configs/vg_lrw.py --topology=v5e:2x2
    python main.py export --at=runs/at --vg=runs/vg --data_dir=DATA --out=bundles/grid
    python main.py evaluate --bundle=bundles/grid --data_dir=DATA --split=validation \\
        --out=reports/grid
    python main.py import_torch --at_net=atnet.pth --vg_net=generator.pth \\
        --basics=ATVGnet/basics --out=bundles/authors
    python main.py animate --bundle=bundles/authors --image=face.jpg \\
        --audio=speech.wav --out=talking.mp4

Bad input ends with one line on standard error and exit code 2; the loss of another
process of the run with 75: start all of them again.
"""

import os
import sys
import warnings

from absl import flags

from command_line import (
    AT,
    AT_NET,
    AUDIO,
    BASICS,
    BATCH,
    BATCH_PER_DEVICE,
    BEAM_OPTIONS,
    BUNDLE,
    CHECKPOINT,
    CONFIG,
    COORDINATOR,
    CORPUS,
    DATA_DIR,
    FACE,
    FIT,
    FORMAT,
    FULL_FRAME,
    HALF,
    IMAGE,
    INDEX,
    LANDMARKS_ONLY,
    LANDMARKS_OUT,
    LIMIT,
    MAX_SECONDS,
    NUM_PROCESSES,
    OUT,
    PANELS,
    PEER_TIMEOUT,
    PROCESS_ID,
    PROFILE,
    PROTOCOL,
    RUNNER,
    SEVERAL_FACES,
    SOURCE,
    SPEAKERS,
    SPLIT,
    SPLIT_RULE,
    TEST_SPEAKERS,
    TOPOLOGY,
    VG,
    VG_NET,
    WORKDIR,
    WORKERS,
    calibrated_boost,
    check_job,
    chosen_experiment,
    chosen_template,
    complain,
    enlarge_stack,
    flag_values,
    keep_freed_memory,
    pretend_tpu_host,
    profile_steps,
    read_jobs,
    refuse_beside_batch,
    require,
    set_up_jax,
)
from input_pipeline.clip import InputError
from jax_atvg.training import distributed


def prepare() -> int:
    """A folder of talking-face videos becomes a dataset."""
    require(CORPUS, SOURCE, DATA_DIR)
    from input_pipeline.preparation import recording
    from input_pipeline.preparation.prepare import prepare

    template = chosen_template()
    prepare(
        *flag_values(CORPUS, SOURCE, DATA_DIR),
        recording.Options(MAX_SECONDS.value, SEVERAL_FACES.value, template),
        split_rule=SPLIT_RULE.value,
        test_speakers=TEST_SPEAKERS.value,
        limit=LIMIT.value,
        num_workers=WORKERS.value,
        runner=RUNNER.value,
        beam_options=BEAM_OPTIONS.value,
    )
    return 0


def train() -> int:
    """An experiment of configs/, from where its workdir has got to."""
    require(WORKDIR, CONFIG)
    first, last = profile_steps(PROFILE.value)
    keep_freed_memory(one_heap=getattr(CONFIG.value, "network", None) == "at")
    distributed.connect(
        *flag_values(COORDINATOR, NUM_PROCESSES, PROCESS_ID),
        timeout=PEER_TIMEOUT.value,
    )
    set_up_jax()
    import jax

    from input_pipeline.training_data import dataset, loader, synthetic
    from input_pipeline.training_data.augment import Strength
    from jax_atvg.training import loop

    experiment = chosen_experiment()
    data = experiment.data
    if data.synthetic:
        clips = held_out = synthetic.SyntheticClips(data.synthetic, 32)
        pca = clips.pca(data.num_coefficients)
    else:
        require(DATA_DIR)
        clips, held_out = (
            dataset.open_clips(DATA_DIR.value, split)
            for split in ("train", "validation")
        )
        pca = dataset.open_pca(DATA_DIR.value, data.num_coefficients)
    at = experiment.network == "at"
    place = {
        "process_index": jax.process_index(),
        "process_count": jax.process_count(),
        "num_threads": data.num_threads,
    }
    batches = loader.training_batches(
        clips,
        "at" if at else "vg",
        batch_size=experiment.batch_size,
        seed=experiment.seed,
        pca=pca,
        num_frames=data.num_frames,
        balance=data.balance,
        augment=Strength(**vars(data.augment)),
        num_workers=data.num_workers,
        **place,
    )

    def validation():
        return loader.evaluation_batches(
            held_out,
            batch_size=jax.device_count(),
            pca=pca if at else None,
            frames=not at,
            limit=data.validation_clips,
            **place,
        )

    loop.train(
        experiment,
        WORKDIR.value,
        batches,
        pca=pca,
        validation=validation,
        profile=(first, last) if last else None,
    )
    return 0


def compile_() -> int:
    """What an experiment's step costs on a machine that is not here."""
    require(CONFIG)
    if TOPOLOGY.value:
        enlarge_stack()
        pretend_tpu_host()
    set_up_jax()
    from input_pipeline.training_data import synthetic
    from jax_atvg.ahead_of_time import cost as compiling

    experiment = chosen_experiment()
    devices = compiling.topology_devices(TOPOLOGY.value)
    # Only its size matters here, and not whose faces it is of.
    pca = synthetic.SyntheticClips(4, 32).pca(experiment.data.num_coefficients)
    if FIT.value:
        cost = compiling.largest_batch(experiment, devices, pca)
    else:
        batch = BATCH_PER_DEVICE.value or -(-experiment.batch_size // len(devices))
        cost = compiling.compile_step(experiment, devices, batch, pca)
        cost = compiling.check_fit(cost, batch)
    found = compiling.report(experiment, cost, TOPOLOGY.value)
    print(compiling.plain_text(found))
    out = OUT.value or "compile.json"
    compiling.write(found, out)
    print(f"wrote {out}")
    return 0


def export() -> int:
    """Two finished runs become a bundle."""
    require(AT, VG, OUT)
    set_up_jax()
    import numpy as np

    from input_pipeline.clip import CROP_SIZE
    from input_pipeline.faces import align
    from input_pipeline.training_data import dataset, sampling
    from jax_atvg.training import export
    from jax_atvg.training.runs import averaged, read_run

    template, seen = chosen_template(), None
    members = [read_run(workdir, "at", CHECKPOINT.value) for workdir in AT.value]
    at = averaged(members)
    vg = read_run(VG.value, "gan", CHECKPOINT.value)
    if DATA_DIR.value:  # a photo must lie in the crop as the clips did
        template = align.Template(*dataset.open_template(DATA_DIR.value))
        clips = dataset.open_clips(DATA_DIR.value, "train")
        seen = export.seen_faces(at.pca, map(sampling.flat_landmarks, clips))
    steps = ", ".join(str(member.step) for member in members)
    print(f"AT-net of step {steps}, VG-net of step {vg.step}")
    half = CROP_SIZE / 2  # undoes landmarks.normalise
    bundle = export.make_bundle(
        at,
        vg,
        calibrated_boost(at),
        half=HALF.value,
        seen=seen,
        landmark_to_crop=np.array([[half, 0, half - 0.5], [0, half, half - 0.5]]),
        template=template.points,
        template_indices=template.indices,
    )
    export.write_bundle(bundle, OUT.value, stablehlo=FORMAT.value == "stablehlo")
    print(f"wrote {OUT.value}")
    return 0


def evaluate() -> int:
    """A bundle's scores on a split of clips, as a folder with a report."""
    require(DATA_DIR, OUT)
    set_up_jax()
    from input_pipeline.training_data import dataset
    from jax_atvg.evaluation import report
    from jax_atvg.evaluation.evaluate import evaluate
    from jax_atvg.inference.bundle import load_bundle

    split = SPLIT.value or "validation"
    results = evaluate(
        load_bundle(BUNDLE.value),
        dataset.open_clips(DATA_DIR.value, split),
        OUT.value,
        protocol=PROTOCOL.value,
        speakers=SPEAKERS.value,
        limit=LIMIT.value,
        landmarks_only=LANDMARKS_ONLY.value,
        title=f"{BUNDLE.value} on {split}",
        progress=True,
    )
    print(report.plain_text(results))
    print(f"wrote {OUT.value}/report.html")
    return 0


def import_torch() -> int:
    """The authors' checkpoints become a bundle."""
    require(AT_NET, VG_NET, BASICS, OUT)
    from input_pipeline.faces import authors
    from jax_atvg.inference.bundle import Bundle, save_bundle
    from jax_atvg.inference.torch_import import convert, read_state_dict
    from jax_atvg.models.at_net import ATNet
    from jax_atvg.models.vg_net import VGNet

    settings = authors.bundle_settings(authors.read_basics(BASICS.value))
    variables = {
        flag.name: convert(flag.name, read_state_dict(flag.value))
        for flag in (AT_NET, VG_NET)
    }
    # Their recurrence runs over the batch; the demo has one clip in it.
    networks = ATNet(), VGNet(recurrence="batch")
    save_bundle(Bundle(*networks, variables, **settings), OUT.value)
    print(f"wrote {OUT.value}")
    return 0


def animate() -> int:
    """A photo and a recording, or a list of them, become videos."""
    if not BATCH.value:
        require(IMAGE, AUDIO, OUT)
    else:
        refuse_beside_batch(IMAGE, AUDIO, OUT, LANDMARKS_OUT)
    from input_pipeline.preparation.workers import assistant
    from jax_atvg.inference.perception import perceive

    jobs = read_jobs(BATCH.value) if BATCH.value else [flag_values(IMAGE, AUDIO, OUT)]
    failed, outs = 0, set()
    with assistant() as begin:
        # The first face is found while jax is imported and the bundle read.  The others
        # not before their turn: a job may take up the video of the one before.
        ahead = {1: begin(perceive, *jobs[0][:2], FACE.value)}
        set_up_jax()
        from jax_atvg.inference.animate import Networks, animate_file
        from jax_atvg.inference.bundle import load_bundle

        networks = Networks(load_bundle(BUNDLE.value))
        for number, job in enumerate(jobs, 1):
            try:
                image, audio, out = check_job(job, f"{BATCH.value}: job {number}", outs)
                perceived = ahead.pop(number, None) or begin(
                    perceive, image, audio, FACE.value
                )
                written = animate_file(
                    image,
                    audio,
                    out,
                    networks,
                    face=FACE.value,
                    full_frame=FULL_FRAME.value,
                    panels=PANELS.value,
                    landmarks_out=LANDMARKS_OUT.value,
                    progress=True,
                    perceived=perceived,
                )
                print("wrote", *written)
            except InputError as error:
                complain(error)
                failed += 1
    if BATCH.value:
        print(f"{len(jobs) - failed} of {len(jobs)} videos written")
    return 2 if failed else 0


def inspect() -> int:
    """What a prepared dataset holds: a table, a contact sheet, an example's plot."""
    require(DATA_DIR)
    from input_pipeline.training_data import inspection

    out = OUT.value or inspection.default_folder(DATA_DIR.value)
    split = SPLIT.value or "train"
    print(inspection.inspect(DATA_DIR.value, split, INDEX.value, out))
    print(f"wrote {out}/contact_sheet.png {out}/example.png")
    return 0


VERBS = {
    "train": train,
    "compile": compile_,
    "prepare": prepare,
    "inspect": inspect,
    "export": export,
    "import_torch": import_torch,
    "evaluate": evaluate,
    "animate": animate,
}


def main(arguments: list[str]) -> int:
    """The exit code: 0, 2 for bad input, 130 when interrupted."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"
    if {"--help", "-h"} & set(arguments):
        module = flags.FLAGS.find_module_defining_flag(OUT.name)
        print(__doc__, flags.FLAGS.module_help(module), sep="\n")
        return 0
    try:
        try:
            words = flags.FLAGS(arguments)[1:]
        except KeyError as error:  # of --config.NAME
            raise InputError(
                f"{error.args[0]}; see jax_atvg/training/config.py"
            ) from error
        if len(words) != 1 or words[0] not in VERBS:
            raise InputError(
                f"{' '.join(words) or 'nothing'} asked for; say one of "
                f"{' '.join(VERBS)}, or --help"
            )
        return VERBS[words[0]]()
    except (InputError, flags.Error) as error:
        complain(error)
        return 2
    except distributed.PeerLost as error:
        complain(error)
        return os.EX_TEMPFAIL
    except KeyboardInterrupt:
        complain("interrupted; what was unfinished is removed")
        return 130


if __name__ == "__main__":
    distributed.leave(main(sys.argv))
