"""Masks as bytes: exact, small where bits are rarely or mostly set, and never larger than the bits."""

from concurrent.futures import ThreadPoolExecutor

import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.bits import pack_bits
from store.codecs.bits import MaskReader, encode_mask
from store.parameters import CHUNK_ELEMENTS
from tests.store.coded import InMemory, mask_artefact, read_mask


def bits(size, *, density, seed=0):
    return pack_bits(np.random.default_rng(seed).random(size) < density)


@given(flags=hnp.arrays(np.bool_, st.integers(1, 2000)))
def test_bits_come_back_as_they_were(flags):
    (read,) = read_mask(mask_artefact(pack_bits(flags), len(flags)))
    np.testing.assert_array_equal(read, pack_bits(flags))


@pytest.mark.parametrize("density", [0.0, 1.0])
def test_a_mask_of_all_zeros_or_all_ones_costs_next_to_nothing(density):
    packed = bits(16 * CHUNK_ELEMENTS, density=density)
    assert len(mask_artefact(packed, 8 * len(packed))) < 200 * 16


def test_a_frozen_tensor_between_others_costs_next_to_nothing():
    around = bits(CHUNK_ELEMENTS // 2, density=0.5)
    between = np.concatenate([around, np.zeros(CHUNK_ELEMENTS // 16, np.uint8)])
    assert (
        len(mask_artefact(between, CHUNK_ELEMENTS)) < len(mask_artefact(around, CHUNK_ELEMENTS // 2)) + 1000
    )


@pytest.mark.parametrize(("density", "largest"), [(0.71, 0.885), (0.8, 0.74), (0.9, 0.53)])
def test_a_chunk_takes_little_more_than_its_entropy(density, largest):
    packed = bits(CHUNK_ELEMENTS, density=density)
    codec, payload = encode_mask(packed)
    assert codec == "zstd"
    assert len(payload) < largest * len(packed)


def test_a_chunk_is_raw_where_coding_gains_less_than_three_percent():
    for density in (0.5, 0.4):
        packed = bits(CHUNK_ELEMENTS, density=density)
        assert encode_mask(packed) == ("raw", packed.tobytes())


def test_a_coded_chunk_owns_its_bytes():
    packed = bits(10_000, density=0.5)
    _, payload = encode_mask(packed)
    before = bytes(payload)
    packed[:] = 0
    assert bytes(payload) == before


def test_chunks_are_read_in_any_order_from_several_threads_and_into_the_callers_memory():
    packed = np.concatenate([bits(CHUNK_ELEMENTS, density=share) for share in (0.5, 0.71, 0.0, 1.0)])
    packed = np.append(packed, bits(999, density=0.6))
    reader = MaskReader(InMemory(mask_artefact(packed, 4 * CHUNK_ELEMENTS + 999)))
    assert (reader.num_chunks, reader.num_bits) == (5, 4 * CHUNK_ELEMENTS + 999)
    out = np.full_like(packed, 255)

    def read(index):
        part = out[index * CHUNK_ELEMENTS // 8 : (index + 1) * CHUNK_ELEMENTS // 8]
        assert reader.chunk(index, out=part) is part

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(read, [4, 2, 0, 3, 1]))
    np.testing.assert_array_equal(out, packed)
