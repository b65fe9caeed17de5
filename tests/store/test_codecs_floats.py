"""Unified deltas as bytes: float32 exactly, the rest nearly, and no zero and no sign that was not there."""

from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.codecs.floats import DTYPES, FloatReader, encode_floats
from store.parameters import CHUNK_ELEMENTS
from tests.store.coded import InMemory, read_unified, unified_artefact

GROUP = 64
LEVELS = {"int8": 128, "int4": 8}
LARGEST = float(np.finfo(np.float32).max)

any_dtype = pytest.mark.parametrize("dtype", DTYPES)

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)
usual = st.floats(min_value=-0.0625, max_value=0.0625, width=32)
chunks = hnp.arrays(
    np.float32,
    st.integers(1, 300),
    elements=st.one_of(usual, st.just(0.0), finite),
    fill=st.just(np.float32(0)),
)


def realistic(size, *, density=1.0, seed=0):
    """Gaussian entries of which each block of 4096 has its own scale, zeros among them."""
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(size) * np.repeat(rng.lognormal(-8.0, 1.0, -(-size // 4096)), 4096)[:size]
    return np.where(rng.random(size) < density, values, 0.0).astype(np.float32)


def relative_error(values, stored):
    return np.linalg.norm(stored.astype(np.float64) - values) / np.linalg.norm(values.astype(np.float64))


def is_sound(values, stored):
    """Zeros where zeros were and only there, and every sign as it was."""
    assert np.isfinite(stored).all()
    np.testing.assert_array_equal(np.sign(stored), np.sign(values))


@given(values=chunks, dtype=st.sampled_from(DTYPES))
def test_what_is_read_is_what_the_encoder_said_would_be_read(values, dtype):
    encoded = encode_floats(values, dtype)
    (read,) = read_unified(unified_artefact(values, dtype))
    np.testing.assert_array_equal(read, encoded.values)
    is_sound(values, read)
    if dtype == "float32":
        np.testing.assert_array_equal(read, values)


@given(values=chunks)
def test_bfloat16_is_off_by_at_most_a_256th(values):
    stored = encode_floats(values, "bfloat16").values
    allowed = np.maximum(np.abs(values.astype(np.float64)) * 2.0**-8, 2.0**-133)
    assert (np.abs(stored.astype(np.float64) - values) <= allowed).all()


@given(values=chunks, dtype=st.sampled_from(sorted(LEVELS)))
def test_grouped_values_are_off_by_no_more_than_evenly_spaced_levels_under_the_largest_would_be(
    values, dtype
):
    stored = encode_floats(values, dtype).values
    kept, read = values[values != 0].astype(np.float64), stored[values != 0].astype(np.float64)
    for start in range(0, len(kept), GROUP):
        part = kept[start : start + GROUP]
        scale = max(1.125 * np.abs(part).max(), 2.0**-100)  # a scale's mantissa has three bits
        if scale > 2.0**127:
            continue  # there is no scale above the largest float
        squared = np.square((read[start : start + GROUP] - part) / scale).sum()
        assert squared <= 1.01 * len(part) / (2 * LEVELS[dtype]) ** 2


EDGES = {
    "nothing but zeros": np.zeros(1000, np.float32),
    "zeros of both signs": np.array([0.0, -0.0] * 50, np.float32),
    "one value": np.array([-3e-5], np.float32),
    "one value among zeros": np.eye(1, 777, 500, dtype=np.float32)[0],
    "a group of the same value": np.full(GROUP, 0.25, np.float32),
    "one more than a group": np.linspace(-1, 1, GROUP + 1, dtype=np.float32),
    "the smallest numbers there are": np.array([1e-45, -1e-45, 1e-38, -1e-40] * 40, np.float32),
    "the largest numbers there are": np.array([LARGEST, -LARGEST, 1e38, -3e38] * 40, np.float32),
    "the largest beside the smallest": np.array([LARGEST, 1e-45, -1e-45, -LARGEST], np.float32),
    "an odd number of values": np.arange(1, 100, dtype=np.float32),
}


@any_dtype
@pytest.mark.parametrize("edge", EDGES)
def test_zeros_and_signs_survive_at_the_edges(edge, dtype):
    values = EDGES[edge]
    (read,) = read_unified(unified_artefact(values, dtype))
    is_sound(values, read)
    np.testing.assert_array_equal(read, encode_floats(values, dtype).values)


@pytest.mark.parametrize(
    ("dtype", "error", "bits"),
    [("float32", 0.0, 27.5), ("bfloat16", 0.002, 11.5), ("int8", 0.007, 7.9), ("int4", 0.1, 3.9)],
)
def test_a_realistic_delta_is_stored_in_few_bits_with_a_small_error(dtype, error, bits):
    values = realistic(CHUNK_ELEMENTS)
    assert relative_error(values, encode_floats(values, dtype).values) <= error
    assert 8 * len(unified_artefact(values, dtype)) <= bits * len(values)


@any_dtype
def test_an_outlier_is_clipped_rather_than_that_it_spoils_its_group(dtype):
    rng = np.random.default_rng(0)
    values = rng.standard_normal(GROUP).astype(np.float32)
    values[7] = 6.0
    stored = encode_floats(values, dtype).values
    unclipped = np.sqrt(GROUP) * 6.0 / 16 / np.sqrt(3)
    assert np.linalg.norm(stored - values) < unclipped
    assert stored[7] > 4.0


@any_dtype
def test_what_no_task_changed_costs_next_to_nothing(dtype):
    frozen = np.zeros(16 * CHUNK_ELEMENTS, np.float32)
    assert len(unified_artefact(frozen, dtype)) < 0.0002 * frozen.size
    half = realistic(CHUNK_ELEMENTS)
    half[: CHUNK_ELEMENTS // 2] = 0
    whole = len(unified_artefact(half[CHUNK_ELEMENTS // 2 :], dtype))
    assert len(unified_artefact(half, dtype)) < whole + 1000


@any_dtype
def test_chunks_are_read_in_any_order_and_into_the_callers_memory(dtype):
    values = realistic(2 * CHUNK_ELEMENTS + 12_345, density=0.9)
    reader = FloatReader(InMemory(unified_artefact(values, dtype)))
    assert (reader.num_chunks, reader.num_elements, reader.dtype) == (3, len(values), dtype)
    flat = np.full(len(values), np.nan, np.float32)
    for index in (2, 0, 1):
        part = flat[index * CHUNK_ELEMENTS : (index + 1) * CHUNK_ELEMENTS]
        assert reader.chunk(index, out=part) is part
    np.testing.assert_array_equal(flat, np.concatenate([reader.chunk(index) for index in range(3)]))
    is_sound(values, flat)


@any_dtype
def test_threads_encode_and_decode_what_one_alone_does(dtype):
    parts = [realistic(70_000, density=0.7, seed=seed) for seed in range(8)]
    alone = [unified_artefact(part, dtype) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda part: unified_artefact(part, dtype), parts)) == alone
        together = list(pool.map(lambda content: read_unified(content)[0], alone))
    for part, read in zip(parts, together, strict=True):
        np.testing.assert_array_equal(read, encode_floats(part, dtype).values)


@any_dtype
def test_coded_parts_own_their_bytes(dtype):
    values = realistic(10_000)
    encoded = encode_floats(values, dtype)
    before = [bytes(payload) for _, payload in encoded.parts]
    values[:] = 1
    assert [bytes(payload) for _, payload in encoded.parts] == before
