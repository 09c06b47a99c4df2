"""Reading compiled programs: against formulas, and against texts written by hand."""

import math

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from jax_atvg.models import convolutions
from jax_atvg.programs import hlo
from jax_atvg.sharding import data_mesh, replicated, split

STEPS, ROWS, WIDE, SIDE = 5, 8, 16, 10


def work(matrix, kernel, rows, pictures):
    def step(carry, row):
        carry = jnp.tanh(row @ matrix + carry)
        return carry, carry

    start = jnp.zeros((rows.shape[1], WIDE))
    _, carries = lax.scan(step, start, rows)
    drawn = lax.conv_general_dilated(
        pictures, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.mean(carries**2) + jnp.mean(drawn**2)


@pytest.fixture(scope="module")
def program():
    """Gradients of `work` over four devices, each with two pictures."""
    mesh = data_mesh(jax.devices()[:4])
    whole = replicated(mesh)
    compiled = (
        jax.jit(
            jax.grad(work, (0, 1)),
            in_shardings=(whole, whole, whole, split(mesh)),
            out_shardings=whole,
        )
        .lower(
            jnp.zeros((ROWS, WIDE)),
            jnp.zeros((3, 3, 4, 8)),
            jnp.zeros((STEPS, 2, ROWS)),
            jnp.zeros((8, SIDE, SIDE, 4)),
        )
        .compile()
    )
    return hlo.Program(compiled.as_text())


def test_products_in_a_loop_count_as_often_as_it_runs(program):
    """Forward and the kernel's gradient, of both; the inputs' gradients are not asked
    for: matrix 2 STEPS x (2 rows), and 2 pictures a device."""
    matrix = 2 * 2 * STEPS * 2 * ROWS * WIDE
    convolution = 2 * 2 * (2 * SIDE * SIDE * 8) * (3 * 3 * 4)
    assert program.flops() == pytest.approx(matrix + convolution, rel=1e-9)


def test_collectives_are_counted_with_their_bytes(program):
    """The kernel's gradient is summed over the devices, and nothing else of size."""
    count, size = program.collectives()["all-reduce"]
    assert count >= 1
    assert 4 * 3 * 3 * 4 * 8 <= size <= 4 * 3 * 3 * 4 * 8 + 64
    assert set(program.collectives()) == {"all-reduce"}


def test_traffic_of_a_sum_is_two_operands_and_a_result():
    x = jnp.zeros((64, 32))
    compiled = jax.jit(lambda a, b: a + b).lower(x, x).compile()
    assert hlo.Program(compiled.as_text()).memory_bytes() == 3 * 64 * 32 * 4


HAND = """\
HloModule hand

%fused (one: f32[6,4], at: s32[]) -> f32[1,4] {
  %one = f32[6,4]{1,0} parameter(0)
  %at = s32[] parameter(1)
  ROOT %part = f32[1,4]{1,0} dynamic-slice(%one, %at, %at), dynamic_slice_sizes={1,4}
}

%in_place (whole: f32[6,4], new: f32[1,4], to: s32[]) -> f32[6,4] {
  %whole = f32[6,4]{1,0} parameter(0)
  %new = f32[1,4]{1,0} parameter(1)
  %to = s32[] parameter(2)
  ROOT %put = f32[6,4]{1,0} dynamic-update-slice(%whole, %new, %to, %to)
}

%test (state: (s32[], f32[6,4])) -> pred[] {
  %state = (s32[], f32[6,4]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %end = s32[] constant(6)
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

%body (state.1: (s32[], f32[6,4])) -> (s32[], f32[6,4]) {
  %state.1 = (s32[], f32[6,4]{1,0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%state.1), index=0
  %x = f32[6,4]{1,0} get-tuple-element(%state.1), index=1
  %row = f32[1,4]{1,0} fusion(%x, %i.1), kind=kLoop, calls=%fused
  %sum = f32[1,4]{1,0} all-reduce(%row), replica_groups={}, to_apply=%add
  %y = f32[6,4]{1,0} fusion(%x, %sum, %i.1), kind=kLoop, calls=%in_place
  ROOT %out = (s32[], f32[6,4]{1,0}) tuple(%i.1, %y)
}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %c = f32[] add(%a, %b)
}

%hidden (h: bf16[8]) -> bf16[64] {
  %h = bf16[8]{0} parameter(0)
  ROOT %wide = bf16[64]{0} all-gather(%h), dimensions={0}
}

ENTRY %main (p: f32[6,4], q: bf16[8]) -> f32[6,4] {
  %p = f32[6,4]{1,0} parameter(0)
  %q = bf16[8]{0} parameter(1)
  %zero = s32[] constant(0)
  %start = (s32[], f32[6,4]{1,0}) tuple(%zero, %p)
  %loop = (s32[], f32[6,4]{1,0}) while(%start), condition=%test, body=%body
  %begun = ((bf16[8]{0}), bf16[64]{0}, u32[]) async-start(%q), calls=%hidden
  %done = bf16[64]{0} async-done(%begun), calls=%hidden
  %moved = (bf16[64]{0:T(8)S(1)}, bf16[64]{0}, u32[]) copy-start(%done)
  %near = bf16[64]{0:T(8)S(1)} copy-done(%moved)
  %square = bf16[64]{0:T(8)S(1)} multiply(%near, %near)
  ROOT %result = f32[6,4]{1,0} get-tuple-element(%loop), index=1
}
"""


def test_a_loop_without_a_note_runs_until_its_counter_meets_the_constant():
    assert hlo.Program(HAND).times["body"] == 6


def test_collectives_in_loops_and_under_way_are_counted():
    found = hlo.Program(HAND).collectives()
    assert found == {"all-reduce": (6, 6 * 16), "all-gather": (1, 128)}


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("(f32[4], f32[6]) all-gather(%a, %b), dimensions={0}", 40),
        ("((f32[2], f32[3]), (f32[4], f32[6])) all-gather-start(%a, %b)", 40),
        ("(f32[5], f32[5], u32[], u32[]) collective-permute-start(%a)", 20),
        ("(f32[5], f32[2]) all-reduce-start(%a, %b), to_apply=%add", 28),
    ],
)
def test_of_several_arrays_at_once_the_results_count(text, size):
    lines = ["ENTRY %main (a: f32[]) -> f32[] {", f"  ROOT %all = {text}", "}"]
    ((count, found),) = hlo.Program("\n".join(lines)).collectives().values()
    assert (count, found) == (1, size)


def test_traffic_of_slices_is_theirs_and_that_of_the_chips_own_memory_none():
    """A turn: the slice read (16) and its index (4), written (16); the sum, 16 in and
    out; 16 in and 16 written in place, the index.  The test: a counter, a constant, a
    verdict.  Gathered: 16 in, 128 out; copied: 128 out of HBM; the square: nothing."""
    turn = (16 + 4 + 16) + (16 + 16) + (16 + 4 + 16)
    test = 4 + 4 + 1
    assert hlo.Program(HAND).memory_bytes() == 6 * (turn + test) + (16 + 128) + 128


ON_TPU = """\
HloModule tpu

%meanwhile.1 (x: f32[6], mine: f32[2], all: f32[8]) -> (f32[6], f32[2], f32[8]) {
  %x = f32[6]{0} parameter(0)
  %y = f32[6]{0} negate(%x)
  %mine = f32[2]{0} parameter(1)
  %all = f32[8]{0} parameter(2)
  %gathered = f32[8]{0} all-gather(%mine), channel_id=7, dimensions={0}
  ROOT %out = (f32[6]{0}, f32[2]{0}, f32[8]{0}) tuple(%y, %mine, %all)
}

%meanwhile.2 (x: f32[6], mine: f32[2], all: f32[8]) -> (f32[6], f32[2], f32[8]) {
  %x = f32[6]{0} parameter(0)
  %y = f32[6]{0} exponential(%x)
  %mine = f32[2]{0} parameter(1)
  %all = f32[8]{0} parameter(2)
  %gathered = f32[8]{0} all-gather(%mine), channel_id=7, dimensions={0}
  ROOT %out = (f32[6]{0}, f32[2]{0}, f32[8]{0}) tuple(%y, %mine, %all)
}

ENTRY %main (p: f32[6], q: f32[2], r: f32[8], s: f32[9,4]) -> f32[6] {
  %p = f32[6]{0} parameter(0)
  %q = f32[2]{0} parameter(1)
  %r = f32[8]{0} parameter(2)
  %s = f32[9,4]{1,0} parameter(3)
  %first = (f32[6], f32[2], f32[8]) fusion(%p, %q, %r), calls=%meanwhile.1, \
backend_config={"estimated_cycles":"500"}
  %a = f32[6]{0} get-tuple-element(%first), index=0
  %second = (f32[6], f32[2], f32[8]) fusion(%a, %q, %r), calls=%meanwhile.2
  %near = ((f32[9,4]), f32[3,4]{1,0:T(8)S(1)}, s32[]) slice-start(%s), slice={[0:3]}
  ROOT %b = f32[6]{0} get-tuple-element(%second), index=0
}
"""


def test_a_collective_that_runs_beside_several_fusions_counts_once():
    assert hlo.Program(ON_TPU).collectives() == {"all-gather": (1, 32)}


def test_the_compilers_estimates_add_up():
    text = HAND.replace("calls=%fused", 'calls=%fused, {"estimated_cycles":"30"}')
    assert hlo.Program(ON_TPU).cycles() == 500
    assert hlo.Program(text).cycles() == 6 * 30
    assert hlo.Program(HAND).cycles() == 0


def test_what_a_fusion_passes_on_is_not_traffic_and_of_a_slice_only_the_slice_is():
    """Twice 24 in, 24 out and 8 to be gathered; 48 of the 144 go into the chip."""
    assert hlo.Program(ON_TPU).memory_bytes() == 2 * (24 + 24 + 8) + 48


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ("f32[2,3]{1,0}", 24),
        ("bf16[8]", 16),
        ("(pred[4], u8[4]{0}, s32[])", 12),
        ("f8e4m3fn[16]{0}", 16),
        ("s4[16]{0}", 8),
        ("token[]", 0),
    ],
)
def test_bytes_of_shapes(shape, size):
    assert sum(array.bytes for array in hlo.arrays(shape)) == size


def test_a_dot_has_the_products_of_its_sum():
    text = (
        "f32[2,7]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}"
    )
    one = hlo.instruction("d", text)
    part = {"a": hlo.instruction("a", "f32[2,5]{1,0} parameter(0)")}
    assert hlo.products(one, part) == math.prod((2, 5, 7))


def test_zeros_between_the_pixels_of_a_dilated_picture_are_no_products():
    """A transposed convolution multiplies every pixel with every tap, once."""
    x, kernel = jnp.zeros((2, 5, 7, 3)), jnp.zeros((3, 3, 3, 4))
    with convolutions.form("native"):
        compiled = jax.jit(convolutions.conv_transpose).lower(x, kernel).compile()
    found = hlo.Program(compiled.as_text()).flops()
    assert found == 2 * (2 * 5 * 7) * (3 * 3 * 3 * 4)


def test_a_program_that_is_not_compiled_can_be_read_as_well():
    """Five times a product in a loop, and a convolution."""

    def function(x, kernel):
        y = convolutions.conv(x, kernel, 1, 1)[0, 0]
        return jax.lax.scan(lambda c, _: (c @ c, None), y, None, length=5)[0]

    with convolutions.form("native"):
        arrays = jnp.zeros((1, 4, 4, 4)), jnp.ones((3, 3, 4, 4))
        lowered = jax.jit(function).lower(*arrays)
    assert hlo.flops_of(lowered) == 2 * (5 * 4**3 + 16 * 4 * 9 * 4)


def test_every_operation_is_counted_as_often_as_it_runs():
    text = """
body.1 (c: f32[2]) -> f32[2] {
  %c = f32[2]{0} parameter(0)
  ROOT %double = f32[2]{0} add(%c, %c)
}

test.1 (c: f32[2]) -> pred[] {
  %c = f32[2]{0} parameter(0)
  ROOT %true = pred[] constant(true)
}

ENTRY %main.1 (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %copied = f32[2]{0} copy(%x)
  ROOT %w = f32[2]{0} while(%copied), condition=%test.1, body=%body.1, \
backend_config={"known_trip_count":{"n":"7"}}
}
"""
    assert hlo.Program(text.replace("\\\n", "")).operations() == 1 + 7


def test_unbalanced_text_is_an_error():
    with pytest.raises(ValueError, match=r"unbalanced: \(f32"):
        hlo.instruction("x", "(f32[2], f32[3] tuple")
