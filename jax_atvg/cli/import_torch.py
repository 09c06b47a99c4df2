"""The authors' PyTorch checkpoints become a bundle.

    python main.py import_torch --at_net=atnet.pth --vg_net=generator.pth \\
        --basics=ATVGnet/basics --out=bundles/authors

PyTorch reads the files: pip install -r requirements/torch.txt.
"""

from jax_atvg.cli.flags import Flags, Given, refuse_out_as_input

NETWORKS = ("at_net", "vg_net")


def flags(add: Flags) -> None:
    add.path("at_net", "AT-net's state dict, a .pth or .npz.", required=True)
    add.path("vg_net", "VG-net's state dict, a .pth or .npz.", required=True)
    add.path("basics", "The folder ATVGnet/basics of their repository.", required=True)
    add.path("out", "The bundle's folder.", required=True)


def run(given: Given) -> int:
    refuse_out_as_input(given, *NETWORKS, "basics")
    from input_pipeline.faces import authors
    from jax_atvg.inference.bundle import Bundle, save_bundle
    from jax_atvg.inference.torch_import import convert, read_state_dict
    from jax_atvg.models.at_net import ATNet
    from jax_atvg.models.vg_net import VGNet

    settings = authors.bundle_settings(authors.read_basics(given.basics))
    variables = {
        name: convert(name, read_state_dict(getattr(given, name))) for name in NETWORKS
    }
    # Their recurrence runs over the batch; the demo has one clip in it.
    networks = ATNet(), VGNet(recurrence="batch")
    save_bundle(Bundle(*networks, variables, **settings), given.out)
    print(f"wrote {given.out}")
    return 0
