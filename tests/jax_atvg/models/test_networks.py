"""What holds for the networks at any size: chunks, devices, options, errors."""

import functools
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jax_atvg.models.at_net import ATNet
from jax_atvg.models.conv_gru import ConvGru
from jax_atvg.models.discriminator import Discriminator
from jax_atvg.models.layers import BatchNorm
from jax_atvg.models.vg_net import VGNet
from tests.random_variables import random_variables

BATCH, FRAMES = 8, 6


def small_at_net():
    return ATNet(
        num_coefficients=4,
        example_widths=(16, 16),
        audio_widths=(8, 8, 8, 8, 8),
        fc_widths=(32, 16),
        lstm_width=16,
    )


def small_vg_net(**options):
    return VGNet(width=4, num_blocks=1, image_size=32, **options)


def inputs_of(module, batch=BATCH, frames=FRAMES):
    random = np.random.default_rng(0).normal
    if isinstance(module, ATNet):
        shapes = [(batch, module.num_coefficients), (batch, frames, 28, 12)]
    elif isinstance(module, VGNet):
        size = module.image_size
        shapes = [(batch, size, size, 3), (batch, frames, 136), (batch, 136)]
    else:
        shapes = [(batch, frames, 32, 32, 3), (batch, 136)]
    return [0.3 * random(size=shape).astype(np.float32) for shape in shapes]


@functools.cache
def variables_of(module):
    return random_variables(module, *inputs_of(module, 1, 1))


@functools.cache
def apply_of(module, **options):
    """The module's apply, jitted once for all tests."""
    return jax.jit(functools.partial(module.apply, **options))


def train(module, inputs, seed=0):
    """(output, running statistics afterwards)."""
    output, moved = apply_of(module, train=True, mutable=("batch_stats",))(
        variables_of(module), *inputs, rngs={"dropout": jax.random.key(seed)}
    )
    return output, moved["batch_stats"]


NETWORKS = {
    "at_net": small_at_net(),
    "vg_net": small_vg_net(),
    "vg_net, over the batch": small_vg_net(recurrence="batch"),
    "discriminator": Discriminator(width=8, fc_width=32, lstm_width=16),
}
network = pytest.mark.parametrize("module", NETWORKS.values(), ids=NETWORKS.keys())


def assert_same(actual, expected, limit):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=limit),
        actual,
        expected,
    )


@pytest.mark.parametrize("chunks", [(1,) * 6, (2, 4), (3, 3), (5, 1)], ids=str)
@pytest.mark.parametrize("name", ["at_net", "vg_net", "vg_net, over the batch"])
def test_chunks_with_the_state_passed_on_equal_one_piece(name, chunks):
    module = NETWORKS[name]
    batch = 1 if "batch" in name else 2
    inputs = inputs_of(module, batch)
    variables, apply = variables_of(module), apply_of(module)
    whole = apply(variables, *inputs)
    pieces, state, start = [], None, 0
    for length in chunks:
        part = list(inputs)
        part[1] = inputs[1][:, start : start + length]
        output = apply(variables, *part, state=state)
        pieces.append(output._replace(state=None))
        state, start = output.state, start + length
    joined = jax.tree.map(lambda *x: np.concatenate(x, 1), *pieces)
    assert_same(joined, whole._replace(state=None), 1e-5)
    assert_same(state, whole.state, 1e-5)


@pytest.mark.parametrize("name", ["at_net", "vg_net", "discriminator"])
def test_the_state_matters(name):
    module = NETWORKS[name]
    inputs = inputs_of(module, 1)
    variables, apply = variables_of(module), apply_of(module)
    first = apply(variables, *inputs)
    second = apply(variables, *inputs, state=first.state)
    assert np.abs(first[0] - second[0]).max() > 1e-4


@network
def test_sharded_over_eight_devices_and_under_pmap_the_outputs_are_the_same(module):
    """Recurrence over the batch cannot be split over devices under pmap, which has
    one clip on each: there, it is compared clip by clip."""
    inputs, variables, apply = inputs_of(module), variables_of(module), apply_of(module)
    devices = jax.devices()
    assert len(devices) == BATCH
    one = apply(variables, *inputs)

    mesh = Mesh(devices, ("data",))
    whole, split = (
        NamedSharding(mesh, spec) for spec in (PartitionSpec(), PartitionSpec("data"))
    )
    eight = apply(jax.device_put(variables, whole), *jax.device_put(inputs, split))
    assert len(eight[0].sharding.device_set) == BATCH
    assert_same(eight, one, 1e-5)

    each = [x[:, None] for x in inputs]
    mapped = jax.pmap(module.apply, in_axes=(None, *[0] * len(each)))(variables, *each)
    alone = [apply(variables, *[x[i] for x in each]) for i in range(BATCH)]
    assert_same(mapped, jax.tree.map(lambda *x: np.stack(x), *alone), 1e-5)
    if getattr(module, "recurrence", "time") == "time":
        assert_same(mapped[0][:, 0], one[0], 1e-5)


@network
@pytest.mark.parametrize("frames", [1, 2, 17])
def test_any_number_of_frames(module, frames):
    inputs = inputs_of(module, 2, frames)
    output = apply_of(module)(variables_of(module), *inputs)
    if isinstance(module, Discriminator):
        assert output.landmarks.shape == (2, frames, 136)
        assert output.logits.shape == (2, frames)
        np.testing.assert_allclose(
            output.score, jax.nn.sigmoid(output.logits.mean(1)), rtol=1e-6
        )
    else:
        assert output[0].shape[:2] == (2, frames)


@pytest.mark.parametrize("size", [16, 48])
def test_vg_net_at_other_sizes(size):
    module = VGNet(width=4, num_blocks=1, image_size=size)
    inputs = inputs_of(module, 1, 2)
    output = apply_of(module)(variables_of(module), *inputs)
    assert output.frames.shape == output.color.shape == (1, 2, size, size, 3)
    assert output.attention.shape == (1, 2, size, size, 1)
    assert output.landmark_attention.shape == (1, 2, size // 4, size // 4, 1)
    assert output.state.shape == (1, size // 16, size // 16, 32)


def test_vg_net_shows_the_photo_where_attention_is_zero_and_the_color_where_it_is_one():
    module = small_vg_net()
    inputs = inputs_of(module, 1)
    variables = jax.tree.map(jnp.asarray, variables_of(module))
    for bias, expected in ((-100.0, "photo"), (100.0, "color")):
        variables["params"]["heads"]["attention_bias"] = jnp.array([bias])
        output = apply_of(module)(variables, *inputs)
        target = output.color if expected == "color" else inputs[0][:, None]
        assert_same(output.frames, jnp.broadcast_to(target, output.frames.shape), 1e-6)


def test_equal_landmarks_leave_nothing_to_draw_but_the_bias_of_the_bottleneck():
    """f(p_t) - f(p_p) vanishes where p_t = p_p: every frame is then the same."""
    module = small_vg_net(recurrence="batch")
    image, _, example = inputs_of(module, 1)
    landmarks = np.repeat(example[:, None], FRAMES, 1)
    frames = apply_of(module)(variables_of(module), image, landmarks, example).frames
    assert_same(frames, jnp.broadcast_to(frames[:, :1], frames.shape), 1e-6)


def test_relative_coefficients_are_added_to_the_photos():
    """And without convolutions the sound is normalised, not scaled."""
    plain = small_at_net().clone(audio_widths=())
    relative = plain.clone(relative=True)
    variables, (example, audio) = variables_of(plain), inputs_of(plain)
    one, other = (
        apply_of(net, train=True, mutable=("batch_stats",))(
            variables, example, 3 * audio + 1
        )[0].coefficients
        for net in (plain, relative)
    )
    np.testing.assert_allclose(other, one + example[:, None], atol=1e-6)
    quieter = apply_of(plain, train=True, mutable=("batch_stats",))(
        variables, example, audio
    )[0].coefficients
    np.testing.assert_allclose(quieter, one, atol=2e-4)


def test_without_recurrence_every_frame_is_what_it_is_alone():
    """As clips of one frame; the state is handed back as it came."""
    gru = ConvGru(4, "none")
    random = np.random.default_rng(0).normal
    x = random(size=(2, 3, 5, 5, 6)).astype(np.float32)
    state = random(size=(2, 5, 5, 4)).astype(np.float32)
    variables = gru.init(jax.random.key(0), x)
    hidden, kept = gru.apply(variables, x, state)
    alone, _ = ConvGru(4, "time").apply(variables, x.reshape(6, 1, 5, 5, 6))
    np.testing.assert_allclose(hidden, alone.reshape(hidden.shape), atol=1e-6)
    np.testing.assert_array_equal(kept, state)
    np.testing.assert_array_equal(gru.apply(variables, x)[1], np.zeros_like(state))


def test_dropout_acts_in_training_alone():
    module, without = small_vg_net(), small_vg_net(dropout=0.0)
    inputs = inputs_of(module, 1)
    first, again, other = (train(module, inputs, i)[0].frames for i in (0, 0, 1))
    assert np.abs(first - other).max() > 1e-4
    np.testing.assert_array_equal(first, again)
    first, other = (train(without, inputs, i)[0].frames for i in (0, 1))
    np.testing.assert_array_equal(first, other)


@network
def test_folded_norm_sees_all_frames_of_the_batch(module):
    """Statistics move once a call, whatever the order of clips and frames."""
    inputs = inputs_of(module, 2)
    first = {"ATNet": "audio_encoder", "VGNet": "landmark_encoder"}.get(
        type(module).__name__, "frame_encoder"
    )
    time = 0 if isinstance(module, Discriminator) else 1
    backwards = list(inputs)
    backwards[time] = inputs[time][::-1, ::-1]
    if isinstance(module, VGNet):
        backwards[2] = inputs[2][::-1]
    _, after = train(module, inputs)
    _, after_backwards = train(module, backwards)
    assert_same(after_backwards[first], after[first], 1e-6)


@pytest.mark.parametrize("name", ["at_net", "vg_net", "discriminator"])
def test_clips_of_a_virtual_batch_are_normalised_as_if_they_were_alone(name):
    """Twice four of eight clips; the running statistics move by the mean of both."""
    module = NETWORKS[name]
    if isinstance(module, VGNet):
        module = module.clone(dropout=0.0)
    virtual = module.clone(
        norm=functools.partial(BatchNorm, virtual_batch_size=BATCH // 2)
    )
    with jax.enable_x64():
        inputs = [x.astype(np.float64) for x in inputs_of(module)]
        v = jax.tree.map(lambda x: x.astype(np.float64), variables_of(module))

        def train(module, *inputs):
            apply = jax.jit(
                functools.partial(module.apply, train=True, mutable=["batch_stats"])
            )
            output, moved = apply(v, *inputs)
            return output._replace(state=None), moved["batch_stats"]

        together, moved = train(virtual, *inputs)
        halves = [
            train(module, *half)
            for half in zip(*(np.split(x, 2) for x in inputs), strict=True)
        ]
        apart = jax.tree.map(lambda *x: jnp.concatenate(x), *(x for x, _ in halves))
        assert_same(together, apart, 1e-12)
        mean = jax.tree.map(lambda *x: sum(x) / 2, *(stats for _, stats in halves))
        assert_same(moved, mean, 1e-12)
        whole, _ = train(module, *inputs)
        with pytest.raises(AssertionError):
            assert_same(whole, apart, 1e-5)


@pytest.mark.parametrize("size", [0, BATCH // 4])
def test_interleaved_batches_are_normalised_as_if_one_came_after_the_other(size):
    """Outputs and running statistics, also of virtual batches."""
    norm = functools.partial(BatchNorm, virtual_batch_size=size)
    module = NETWORKS["discriminator"].clone(norm=norm)
    both = module.clone(norm=functools.partial(norm, interleaved=2))
    with jax.enable_x64():
        inputs = [x.astype(np.float64) for x in inputs_of(module)]
        v = jax.tree.map(lambda x: x.astype(np.float64), variables_of(module))

        def train(module, stats, *inputs):
            v["batch_stats"] = stats
            output, moved = module.apply(v, *inputs, train=True, mutable="batch_stats")
            return output._replace(state=None), moved["batch_stats"]

        together, stats = train(both, v["batch_stats"], *inputs)
        one_by_one = v["batch_stats"]
        for which in range(2):
            alone, one_by_one = train(
                module, one_by_one, *(x[which::2] for x in inputs)
            )
            mine = jax.tree.map(operator.itemgetter(slice(which, None, 2)), together)
            assert_same(mine, alone, 1e-12)
        assert_same(stats, one_by_one, 1e-12)


def test_a_virtual_batch_of_all_clips_is_the_batch():
    norm = functools.partial(BatchNorm, virtual_batch_size=BATCH)
    module = NETWORKS["discriminator"]
    inputs = inputs_of(module)
    assert_same(train(module.clone(norm=norm), inputs), train(module, inputs), 1e-6)


def test_modules_are_hashable_and_comparable():
    """They are static arguments of jitted functions."""
    assert hash(ATNet()) == hash(ATNet()) and ATNet() == ATNet()
    assert VGNet() != VGNet(recurrence="batch")


def test_unknown_recurrence_is_an_error():
    x = jnp.zeros((1, 1, 8, 8, 4))
    with pytest.raises(ValueError, match=r"'space' must be one of time, batch, none"):
        ConvGru(4, "space").init(jax.random.key(0), x)


@pytest.mark.parametrize(("size", "given"), [(128, 64), (100, 100)])
def test_image_of_another_size_is_an_error(size, given):
    module = VGNet(width=8, image_size=size)
    inputs = (
        jnp.zeros((1, given, given, 3)),
        jnp.zeros((1, 1, 136)),
        jnp.zeros((1, 136)),
    )
    with pytest.raises(ValueError, match=f"{given}x{given} .* multiple of 16; resize"):
        module.init(jax.random.key(0), *inputs)


def test_conv_transpose_equals_the_dilated_convolution_and_its_gradients():
    """y[2i-1+a] += x[i] k[a], brute force by lax with zeros between the pixels."""
    from jax_atvg.models.layers import conv_transpose

    random = np.random.default_rng(0).normal
    x, kernel = random(size=(2, 3, 5, 4, 6)), random(size=(3, 3, 6, 7))

    def dilated(x, kernel):
        y = jax.lax.conv_general_dilated(
            x.reshape(6, *x.shape[2:]),
            kernel[::-1, ::-1],
            (1, 1),
            [(1, 2)] * 2,
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return y.reshape(2, 3, *y.shape[1:])

    with jax.enable_x64(True):
        results = []
        for function in (conv_transpose, dilated):
            y, pull_back = jax.vjp(function, jnp.asarray(x), jnp.asarray(kernel))
            results.append((y, pull_back(jnp.sin(jnp.arange(y.size)).reshape(y.shape))))
        assert results[0][0].shape == (2, 3, 10, 8, 7)
        assert_same(*results, 1e-12)
