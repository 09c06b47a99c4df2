"""Two finished runs become a bundle, which is all that `animate` needs.

    python main.py export --at=runs/at --vg=runs/vg --data_dir=DATA --out=bundles/mine

Without --data_dir AT-net's coefficients are not multiplied by factors that match their
spread to the clips' (the paper's boost w, equation 3), and no range of faces is known.
The face lies in the crop where the data of the runs have it; --template says where,
for runs that have not noted it.
"""

from jax_atvg.cli.flags import (
    Flags,
    Given,
    chosen_template,
    refuse_out_as_input,
    template_flags,
)


def flags(add: Flags) -> None:
    add.path_list(
        "at",
        "The folder that AT-net was trained in; of several the mean is taken, which "
        "errs less than one of them does on average.",
        required=True,
    )
    add.path("vg", "The folder that VG-net was trained in.", required=True)
    add.path("out", "The bundle's folder.", required=True)
    add.path(
        "data_dir",
        "The dataset of both runs: for the range of faces and the boost w, factors of "
        "AT-net's coefficients (equation 3).",
    )
    add.choice(
        "checkpoint",
        ("best", "newest"),
        "Of both runs: of the least validation loss, or the last.",
        "best",
    )
    add.choice(
        "format",
        ("bundle", "stablehlo"),
        "stablehlo adds programs that need jax alone.",
        "bundle",
    )
    add.switch("half", "Weights in float16, half the size.")
    template_flags(add, default=None)


def run(given: Given) -> int:
    refuse_out_as_input(given, "at", "vg", "data_dir")
    from jax_atvg.cli.machine import set_up_jax

    set_up_jax()
    from jax_atvg.training.export import export

    export(
        given.at,
        given.vg,
        given.out,
        given.data_dir,
        checkpoint=given.checkpoint,
        half=given.half,
        stablehlo=given.format == "stablehlo",
        template=chosen_template(given),
        say=print,
    )
    print(f"wrote {given.out}")
    return 0
