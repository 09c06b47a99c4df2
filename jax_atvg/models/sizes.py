"""The sizes and options of the networks that a config can set.

The modules inherit these fields, so that `VGNet(width=16)` and
`--config.vg_net.width=16` mean the same and every default is written once.  The
defaults are those of the authors' networks (docs/reference.md, section 1).
"""

import dataclasses

# In which networks multiply, see precision.py.
PRECISIONS = ("highest", "default", "bfloat16")


@dataclasses.dataclass
class AtNetSizes:
    """The options of AT-net, which predicts landmarks from sound.

    example_widths: widths of the layers that read the photo's coefficients.
    audio_widths: channels of the convolutions over an audio window; () leaves them out.
    fc_widths: widths of the linear layers after them.  lstm_width, lstm_layers: width
    and depth of the recurrence.  relative: the output is added to the photo's
    coefficients, so that an unknown face keeps its own shape (not in the paper).
    from_rest: these are of the photo's face with its lips closed, so that how far they
    are open there is not taken for its shape (not in the paper).
    members: number of networks that are trained side by side, each by itself, and whose
    outputs are averaged (not in the paper); `export` does the same with runs trained
    separately.
    doubt: how much the members' disagreement in a frame draws their mean back to the
    photo's coefficients, see at_net.without_doubt; 0: not at all (not in the paper).
    """

    example_widths: tuple[int, ...] = (256, 512)
    audio_widths: tuple[int, ...] = (64, 128, 256, 256, 512)
    fc_widths: tuple[int, ...] = (2048, 256)
    lstm_width: int = 256
    lstm_layers: int = 3
    relative: bool = False
    from_rest: bool = False
    members: int = 1
    doubt: float = 0.0


@dataclasses.dataclass
class VgNetSizes:
    """The options of VG-net, which generates frames from a photo and landmarks.

    recurrence: "time" runs over the frames, as the paper says; "batch" over the clips,
    as the authors' code does; "none" generates every frame independently (ablation).
    width: channels of the first layer, to which all others are proportional.
    num_blocks: number of residual blocks.  dropout: rate of the dropout in them, in
    training.  compose: the attention map blends colour map and photo; with False the
    colour map is the frame (ablation).  remat: the backward pass recomputes the large
    layers instead of keeping their activations: less memory, more time.  closes_eyes:
    it has learnt to close the eyes of photos as the landmarks do (not in the paper).
    """

    recurrence: str = "time"
    width: int = 64
    num_blocks: int = 9
    dropout: float = 0.5
    compose: bool = True
    remat: bool = False
    closes_eyes: bool = False


@dataclasses.dataclass
class DiscriminatorSizes:
    """The options of the discriminator.

    width: channels of the first convolution, doubled by each of the next three.
    fc_width: width of the linear layer after them.  example_widths: widths of the
    layers that read the photo's landmarks.  lstm_width, lstm_layers: width and depth of
    the recurrence.  spectral_norm: divides the convolutions' kernels by their spectral
    norm, which keeps the discriminator from overpowering VG-net (not in the paper).
    """

    width: int = 64
    fc_width: int = 512
    example_widths: tuple[int, ...] = (256, 512)
    lstm_width: int = 256
    lstm_layers: int = 3
    spectral_norm: bool = False


@dataclasses.dataclass
class MouthDiscriminatorSizes:
    """The options of the discriminator of mouths (not in the paper).

    width: channels of the first convolution, doubled by each of the next two.  side: of
    the square around the mouth that it sees, in pixels.
    """

    width: int = 32
    side: int = 48
