"""Measures what each part of the method is worth: trains variants and compares them.

    python benchmarks/ablation.py --data_dir=DATA --out=runs/ablation
    python benchmarks/ablation.py --data_dir=DATA --out=OUT --only=pixels,no_attention

The variants are those of configs/ablation.py, unless named without those of larger
batches.  Each is trained with every seed and
scored on the same validation clips.  OUT/VARIANT_SEED.json keeps the scores, so that a
run that was interrupted continues; those of docs/results.md are in docs/ablation.
VG-net is given the true landmarks, so that AT-net has no influence; AT-net is scored on
landmarks.  Three choices of the authors are added that no config can express:

    each_frame_normalised    BatchNorm sees one frame at a time
    same_photo_landmarks     every photo is given the mean face's landmarks
    gan_generator_twice      D and G see two forward passes

Variants that begin with the same steps share them, if one process trains them.  The
tables show means over clips and seeds, and the difference to the first row, paired by
clip and seed, with its 95 % bootstrap interval over clips and seeds.
"""

import argparse
import dataclasses
import functools
import json
import pathlib
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from configs import ablation  # noqa: E402
from input_pipeline.files import replacing  # noqa: E402
from jax_atvg.cli.machine import keep_freed_memory, set_up_jax  # noqa: E402

AUTHORS = {
    "each_frame_normalised": "pixels",
    "same_photo_landmarks": "pixels",
    "gan_generator_twice": "gan",
}
VG_METRICS = {
    "mouth_psnr": "mouth PSNR dB ↑",
    "mouth_ssim": "mouth SSIM ↑",
    "mouth_sharpness": "sharpness (1)",
    "lmd": "LMD px ↓",
    "r": "r ↑",
    "checkerboard": "checkerboard (1)",
}
AT_METRICS = {
    "lmd": "LMD px ↓",
    "r": "r ↑",
    "velocity_error": "velocity error ↓",
    "jitter_ratio": "jitter (1)",
}


def main() -> None:
    options = parse()
    names = options.only or [*ablation.IN_TABLES, *AUTHORS]
    options.out.mkdir(parents=True, exist_ok=True)
    keep_freed_memory(one_heap=False)
    set_up_jax()
    for seed in range(options.seeds):
        for name in names:
            path = options.out / f"{name}_{seed}.json"
            if path.exists():
                continue
            begin = time.perf_counter()
            rows = scores(name, seed, options)
            with replacing(path) as unfinished:
                unfinished.write_text(json.dumps(rows))
            print(f"{name} {seed}: {time.perf_counter() - begin:.0f} s", flush=True)
    at = [name for name in names if name.startswith("at_")]
    gan = [name for name in names if name.startswith("gan")]
    rest = [name for name in names if name not in at + gan]
    print_table("gan", gan, VG_METRICS, options)
    print_table("pixels", rest, VG_METRICS, options)
    print_table("at_full", at, AT_METRICS, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--steps", type=int, default=0, help="training steps; 0: the config's"
    )
    parser.add_argument(
        "--clips", type=int, default=12, help="clips that VG-net is scored on"
    )
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    return parser.parse_args()


def scores(name: str, seed: int, options) -> list[dict]:
    """Trains and scores a variant: a row per clip, its name and the table's scores."""
    config = ablation.get_config(AUTHORS.get(name, name))
    config.seed = seed
    if options.steps:
        config.steps = options.steps
    if config.network == "at":
        rows, metrics = at_scores(name, config, options), AT_METRICS
    else:
        rows, metrics = vg_scores(name, config, options), VG_METRICS
    return [{k: row[k] for k in ("clip", *metrics)} for row in rows]


# --- VG-net ---


def vg_scores(name: str, config, options) -> list[dict]:
    import jax

    from input_pipeline.faces import landmarks
    from input_pipeline.media.image import to_float, to_u8
    from input_pipeline.training_data import sampling
    from input_pipeline.training_data.dataset import open_clips, open_pca
    from jax_atvg.evaluation.evaluate import choose
    from jax_atvg.evaluation.scores import Case
    from jax_atvg.evaluation.scoring import score

    mean = open_pca(options.data_dir, 6).mean
    nets, state = trained(name, config, options, mean)
    variables = {"params": state.vg.params, "batch_stats": state.vg.batch_stats}

    @jax.jit
    def draw(image, points, example):
        return to_u8(
            nets.vg_net.apply(variables, image, points[None], example).frames[0]
        )

    clips = open_clips(options.data_dir, "validation", list(config.data.mix.shares()))
    rows = []
    for i in choose(clips.speakers, (), options.clips):
        clip = clips[i]
        frames = sampling.decode(clip, range(len(clip.frames)))
        points = sampling.flat_landmarks(clip)
        example = points[:1] if name != "same_photo_landmarks" else mean[None]
        made = jax.device_get(draw(to_float(frames[:1]), points, example))
        found = landmarks.to_pixels(points).reshape(-1, 68, 2)
        case = Case(frames[0], frames[1:], found[1:], {}, {"made": made[1:]})
        rows.append({"clip": clips.clip_ids[i], **score(case)["made"]})
    return rows


def trained(name: str, config, options, mean):
    """Trains VG-net for config.steps; returns (nets, state)."""
    import jax
    import jax.numpy as jnp
    import numpy as np

    from input_pipeline.training_data import dataset, loader
    from jax_atvg.sharding import data_mesh, to_devices
    from jax_atvg.training import gan_step
    from jax_atvg.training.train_step import build

    mesh = data_mesh(jax.devices()[:1])
    built = build(config, mesh)

    def compiled(step):
        return jax.jit(functools.partial(step, built.nets), donate_argnums=0)

    if name == "each_frame_normalised":
        from tests.per_frame_norm import PerFrameBatchNorm

        vg_net = built.nets.vg_net.clone(norm=PerFrameBatchNorm)
        built = built._replace(nets=dataclasses.replace(built.nets, vg_net=vg_net))
        built = built._replace(
            step=compiled(gan_step.gan_step), warm_up=compiled(gan_step.pixel_step)
        )
    if name == "gan_generator_twice":
        built = built._replace(step=compiled(two_forwards))
    mix = config.data.mix.shares()
    batches = loader.training_batches(
        dataset.open_clips(options.data_dir, "train", list(mix)),
        "vg",
        batch_size=config.batch_size,
        seed=config.seed,
        num_frames=config.data.num_frames,
        mix=mix,
        balance=config.data.balance,
        augment=config.data.augment,
    )
    state, done, shared = built.init(config.seed), 0, first_steps(name, config)
    if shared in FIRST:  # discriminators have not yet moved then
        vg, done, place = FIRST[shared]
        state = state._replace(step=jnp.int32(done), vg=jax.tree.map(jnp.copy, vg))
        batches.set_state(place)
    for i in range(done, config.steps):
        if i == config.gan_loss.pixel_steps:
            FIRST[shared] = jax.tree.map(jnp.copy, state.vg), i, batches.get_state()
        batch = next(batches)
        if name == "same_photo_landmarks":
            batch = batch._replace(example=np.broadcast_to(mean, batch.example.shape))
        step = built.at(i)
        state, losses = step(state, to_devices(batch, mesh), config.seed)
        if i % 8 == 7:
            jax.block_until_ready(losses)
    batches.close()
    return built.nets, state


FIRST = {}  # first_steps -> (VG-net, step, position in the data) as other terms begin


def first_steps(name: str, config) -> str:
    """A key, equal for runs whose steps on pixels alone are equal."""
    from jax_atvg.training.config import GanLoss, flatten

    loss = config.gan_loss
    alike = GanLoss(
        pixel_weight=loss.pixel_weight,
        dynamic=loss.dynamic,
        beta=loss.beta,
        mouth_weight=loss.mouth_weight,
        eyes_weight=loss.eyes_weight,
        pixel_steps=loss.pixel_steps,
    )
    own = name if AUTHORS.get(name) == "pixels" else ""
    return json.dumps([own, flatten(dataclasses.replace(config, gan_loss=alike))])


def two_forwards(nets, state, batch, seed):
    """The authors' GAN step: D learns from one forward pass, G from another."""
    import jax

    from jax_atvg.training import gan_step as g
    from jax_atvg.training.pictures import with_float_pictures

    batch = with_float_pictures(batch)
    first, _, batch_stats = g.generate(nets, state, batch, seed)
    disc, d = g.discriminator_update(nets, state.disc, first, batch)
    again = state._replace(disc=disc, vg=state.vg._replace(batch_stats=batch_stats))
    fake, pull_back, batch_stats = g.generate(nets, again, batch, seed + 1_000_003)
    (_, terms), cotangent = jax.value_and_grad(g.vg_loss, 2, has_aux=True)(
        nets, again, fake, batch
    )
    (gradients,) = pull_back(cotangent)
    return g.moved(nets, again, gradients, batch_stats), d | terms


# --- AT-net ---


def at_scores(name: str, config, options) -> list[dict]:
    import jax
    import numpy as np

    from input_pipeline.clip import CROP_SIZE
    from input_pipeline.faces.align import DEFAULT_TEMPLATE
    from input_pipeline.training_data import dataset, loader, sampling
    from jax_atvg.evaluation.evaluate import case_of, other_clips, read_take
    from jax_atvg.evaluation.scores import host_scores
    from jax_atvg.evaluation.synthesis import Synthesis
    from jax_atvg.inference.bundle import Bundle
    from jax_atvg.models.vg_net import VGNet
    from jax_atvg.sharding import data_mesh, to_devices
    from jax_atvg.training.export import seen_faces
    from jax_atvg.training.train_step import build

    data, mesh = config.data, data_mesh(jax.devices()[:1])
    pca = dataset.open_pca(options.data_dir, data.num_coefficients)
    built = build(config, mesh, pca)
    clips = dataset.open_clips(options.data_dir, "train")
    batches = loader.training_batches(
        clips,
        "at",
        batch_size=config.batch_size,
        seed=config.seed,
        pca=pca,
        num_frames=data.num_frames,
        balance=data.balance,
        augment=data.augment,
    )
    state = built.init(config.seed)
    for i in range(config.steps):
        state, losses = built.step(state, to_devices(next(batches), mesh), config.seed)
        if i % 8 == 7:
            jax.block_until_ready(losses)
    batches.close()
    half = CROP_SIZE / 2
    bundle = Bundle(
        built.nets.net,
        VGNet(),
        {"at_net": state.net.variables, "vg_net": {}},
        pca,
        np.ones(data.num_coefficients, np.float32),
        np.array([[half, 0, half - 0.5], [0, half, half - 0.5]]),
        DEFAULT_TEMPLATE.points,
        DEFAULT_TEMPLATE.indices,
        seen=seen_faces(pca, map(sampling.flat_landmarks, clips)),
    )
    held_out = dataset.open_clips(options.data_dir, "validation")
    other = other_clips(held_out.speakers, held_out.clip_ids)
    synthesis = Synthesis(bundle, 1, mesh)
    rows = []
    for i in range(len(held_out)):
        take = read_take(held_out, i, other[i])
        (made,) = synthesis([take], landmarks_only=True)
        table, _ = host_scores(case_of(bundle, take, made))
        rows.append({"clip": held_out.clip_ids[i], **table["at"]})
    return rows


# --- the table ---


def print_table(base: str, names: list[str], metrics: dict[str, str], options) -> None:
    if base in names:
        names.sort(key=base.__ne__)
        print(table(names, base, metrics, options), "\n")
    elif names:
        print(f"no table of {', '.join(names)} without {base}; add it to --only")


def table(names: list[str], base: str, metrics: dict[str, str], options) -> str:
    """The table in Markdown, of cells "mean (difference to the base [interval])"."""
    import numpy as np

    from jax_atvg.evaluation.confidence import bootstrap

    def read(name: str) -> np.ndarray:
        runs = [
            json.loads((options.out / f"{name}_{seed}.json").read_text())
            for seed in range(options.seeds)
        ]
        return np.array([[row[m] for m in metrics] for run in runs for row in run])

    full = read(base)
    lines = [["", *metrics.values()], ["---"] * (len(metrics) + 1)]
    for name in names:
        values = read(name)
        cells = [name]
        for mean, change in zip(
            np.nanmean(values, 0), bootstrap(values - full), strict=True
        ):
            cell = f"{mean:.3g}"
            if np.any(values != full):
                cell += " ({mean:+.2g} [{low:+.2g}, {high:+.2g}])".format(**change)
            cells.append(cell)
        lines.append(cells)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
