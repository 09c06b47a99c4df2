"""Clips over rows: each is played once and in order, and no row is idle."""

from hypothesis import given
from hypothesis import strategies as st

from jax_atvg.inference.rows import assign

LENGTHS = st.lists(st.integers(1, 40), max_size=12)
ROWS, CHUNKS = st.integers(1, 6), st.integers(1, 9)


def play(lengths, rows, chunk, clips=None):
    """All calls, of clips that are numbers."""
    clips = range(len(lengths)) if clips is None else clips
    return list(assign(clips, lengths.__getitem__, rows, chunk))


@given(LENGTHS, ROWS, CHUNKS)
def test_every_clip_gets_exactly_its_own_frames_in_order(lengths, rows, chunk):
    played = {clip: [] for clip in range(len(lengths))}
    ended = []
    for parts in play(lengths, rows, chunk):
        for part in parts:
            assert part.clip not in ended and 1 <= part.count <= chunk
            played[part.clip] += range(part.start, part.start + part.count)
            ended += [part.clip] * part.last
    assert played == {clip: list(range(n)) for clip, n in enumerate(lengths)}
    assert sorted(ended) == list(range(len(lengths)))


@given(LENGTHS, ROWS, CHUNKS)
def test_a_clip_keeps_its_row_from_call_to_call(lengths, rows, chunk):
    places = {}  # of a clip: (call, row) of its parts
    for call, parts in enumerate(play(lengths, rows, chunk)):
        taken = [part.row for part in parts]
        assert len(set(taken)) == len(taken) and set(taken) <= set(range(rows))
        for part in parts:
            places.setdefault(part.clip, []).append((call, part.row))
    for where in places.values():
        (first, row), count = where[0], len(where)
        assert where == [(first + i, row) for i in range(count)]


@given(LENGTHS, ROWS, CHUNKS)
def test_no_row_is_idle_while_a_clip_waits(lengths, rows, chunk):
    begun = 0
    for parts in play(lengths, rows, chunk):
        begun += sum(part.start == 0 for part in parts)
        assert len(parts) == rows or begun == len(lengths)


@given(LENGTHS, ROWS, CHUNKS, st.lists(st.booleans()))
def test_clips_that_are_late_are_played_all_the_same(lengths, rows, chunk, late):
    """The first clip after each "none before the next call" waits for the next call."""
    clips = list(range(len(lengths)))
    for place, wait in reversed(list(enumerate(late))):
        if wait:
            clips.insert(min(place, len(clips)), None)
    frames = [0] * len(lengths)
    order = []
    for parts in play(lengths, rows, chunk, clips):
        for part in parts:
            assert frames[part.clip] == part.start
            frames[part.clip] += part.count
            order += [part.clip] * (part.start == 0)
    assert frames == lengths and order == sorted(order)


def test_a_clip_may_wait_for_the_end_of_another():
    """Meanwhile its row is idle, and where nothing plays, nothing is called."""
    ended = []

    def clips():
        yield 0
        while 0 not in ended:
            yield None
        yield 1

    calls = []
    for parts in assign(clips(), lambda clip: 5, rows=2, chunk=2):
        calls.append([(part.clip, part.start) for part in parts])
        if len(calls) == 4:  # it is written one call after it was computed
            ended.append(0)
    first = [[(0, 0)], [(0, 2)], [(0, 4)], []]
    assert calls == [*first, [(1, 0)], [(1, 2)], [(1, 4)]]


def test_a_clip_that_is_given_up_frees_its_row():
    lengths = [100, 4]
    calls = []
    for parts in assign([0, 1], lengths.__getitem__, rows=1, chunk=2):
        calls.append([(part.clip, part.start) for part in parts])
        if len(calls) == 2:
            lengths[0] = 0
    assert calls == [[(0, 0)], [(0, 2)], [(1, 0)], [(1, 2)]]


def test_without_clips_nothing_is_called():
    assert play([], rows=3, chunk=2) == []
