"""Turns pictures of high dynamic range, as phones record them, into ordinary ones.

Source: ITU-R BT.2100 (transfer functions of PQ and HLG, with the display's gamma of 1.2
at 1000 cd/m2) and BT.2087 (BT.2020's primaries to BT.709's).  What an ordinary screen
of 100 cd/m2 can show looks the same; brighter light is squeezed below its white.
"""

import functools

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

PQ, HLG = 16, 18  # FFmpeg's numbers of these transfer functions
PEAK, WHITE = 1000.0, 100.0  # cd/m2
LUMA = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
TO_BT709 = np.array(
    [
        [1.6605, -0.5876, -0.0728],
        [-0.1246, 1.1329, -0.0083],
        [-0.0182, -0.1006, 1.1187],
    ],
    np.float32,
)
KNEE = 0.8  # of white: darker light stays
GAMMA = 2.2  # of ordinary screens
STEPS = 65535  # of light, from black to white, in the table of its codes


def to_sdr(
    picture: UInt16[np.ndarray, "H W 3"], transfer: int
) -> UInt8[np.ndarray, "H W 3"]:
    """RGB of BT.2020, 0..65535, coded with PQ or HLG -> RGB of BT.709, 0..255."""
    light = light_of_codes(transfer)[picture]
    if transfer == HLG:
        light = on_screen(light)
    light = np.maximum((light / WHITE) @ TO_BT709.T, 0)
    brightest = np.maximum(light.max(-1, keepdims=True), 1e-6)
    light *= squeezed(brightest) / brightest  # the hue stays
    return codes_of_light()[np.rint(STEPS * light).clip(0, STEPS).astype(np.uint16)]


@functools.cache
def light_of_codes(transfer: int) -> Float32[np.ndarray, "65536"]:
    """What each code of 16 bits means: PQ's in cd/m2, HLG's in the scene's light."""
    signal = np.arange(65536) / 65535
    return (pq_light if transfer == PQ else hlg_light)(signal).astype(np.float32)


@functools.cache
def codes_of_light() -> UInt8[np.ndarray, "65536"]:
    """The code of light 0, 1 / STEPS, ... 1."""
    light = np.arange(STEPS + 1) / STEPS
    return np.rint(255 * light ** (1 / GAMMA)).astype(np.uint8)


def pq_light(signal):
    """PQ's code in [0, 1] -> cd/m2, at most PEAK.  BT.2100, table 4."""
    m1, m2 = 2610 / 16384, 2523 / 4096 * 128
    c1, c2, c3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32
    e = signal ** (1 / m2)
    light = 10_000 * (np.maximum(e - c1, 0) / (c2 - c3 * e)) ** (1 / m1)
    return np.minimum(light, PEAK)


def hlg_light(signal):
    """HLG's code in [0, 1] -> the scene's light in [0, 1].  BT.2100, table 5."""
    a = 0.17883277
    b, c = 1 - 4 * a, 0.5 - a * np.log(4 * a)
    return np.where(signal <= 0.5, signal**2 / 3, (np.exp((signal - c) / a) + b) / 12)


def on_screen(scene: Float32[np.ndarray, "H W 3"]) -> Float32[np.ndarray, "H W 3"]:
    """The scene's light -> cd/m2 on a screen of PEAK.  BT.2100, table 5, OOTF."""
    luminance = np.maximum((scene @ LUMA)[..., None], np.float32(1e-6))
    return PEAK * scene * luminance ** np.float32(0.2)


def squeezed(light: Float32[np.ndarray, "*any"]) -> Float32[np.ndarray, "*any"]:
    """Light, where 1 is white: the same up to KNEE, then smoothly to at most 1."""
    room = np.float32(1 - KNEE)
    above = 1 - np.exp(-np.maximum(light - np.float32(KNEE), 0) / room)
    return np.where(light <= KNEE, light, KNEE + room * above)
