from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.network import standin


@given(st.integers(standin.LOOPBACK_INDEX, standin.LAST_INDEX))
def test_both_twins_lead_back(index: int) -> None:
    assert standin.index_of(standin.v4(index)) == index
    assert standin.index_of(standin.v6(index)) == index


@pytest.mark.parametrize("index", [0, -1, standin.LAST_INDEX + 1])
def test_out_of_range(index: int) -> None:
    for make in (standin.v4, standin.v6):
        with pytest.raises(ValueError, match="stand-in index"):
            make(index)


@pytest.mark.parametrize(
    "address",
    [
        "198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0", "127.0.0.1", "140.82.1.2",  # 198.19.255.255 is past the last index
        "fdc1:157:e400::", "fdc1:157:e400:1::2", "fdc1:157:e400::2:0:0:0", "::ffff:198.18.0.2", "fdc1:157:e400::2%lo", "::1",
        "198.18.0.2 ", "198.18.2", "0xc6120002", "", "x", "198.18.0.2\0",
    ],
)  # fmt: skip
def test_other_addresses_stand_for_nothing(address: str) -> None:
    assert standin.index_of(address) is None


@given(st.text())
def test_any_text(text: str) -> None:
    index = standin.index_of(text)
    assert index is None or text in (standin.v4(index), standin.v6(index)) or ":" in text
