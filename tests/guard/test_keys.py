"""Secrets are derived by RFC 5869 from unambiguous names."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tollkeeper.errors import GuardError
from tollkeeper.guard.keys import derive, hkdf_sha256

MASTER = bytes(range(32))
PARTS = st.lists(st.one_of(st.text(max_size=6), st.integers()), max_size=4)

# RFC 5869, appendix A, test cases 1 to 3: material, salt, info, length, output.
VECTORS = [
    (
        "0b" * 22,
        "000102030405060708090a0b0c",
        "f0f1f2f3f4f5f6f7f8f9",
        42,
        "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
    ),
    (
        "".join(f"{i:02x}" for i in range(0x50)),
        "".join(f"{i:02x}" for i in range(0x60, 0xB0)),
        "".join(f"{i:02x}" for i in range(0xB0, 0x100)),
        82,
        (
            "b11e398dc80327a1c8e7f78c596a49344f012eda2d4efad8a050cc4c19afa97c59045a99cac7827271cb"
            "41c65e590e09da3275600c2f09b8367793a9aca3db71cc30c58179ec3e87c14c01d5c1f3434f1d87"
        ),
    ),
    (
        "0b" * 22,
        "",
        "",
        42,
        "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
    ),
]


@pytest.mark.parametrize(("material", "salt", "info", "length", "expected"), VECTORS)
def test_hkdf_gives_the_rfc_5869_test_vectors(
    material: str, salt: str, info: str, length: int, expected: str
) -> None:
    """Key derivation is the published one, so other implementations can audit it."""
    found = hkdf_sha256(
        bytes.fromhex(material), salt=bytes.fromhex(salt), info=bytes.fromhex(info), length=length
    )
    assert found.hex() == expected


@given(one=PARTS, other=PARTS)
def test_different_names_give_different_secrets(
    one: list[str | int], other: list[str | int]
) -> None:
    """No two lists of parts share a secret, however their characters are split."""
    assume(one != other)
    assert derive(MASTER, "p", *one) != derive(MASTER, "p", *other)


@pytest.mark.parametrize(
    ("one", "other"), [(("ab", "c"), ("a", "bc")), ((1,), ("1",)), (("a", ""), ("a",)), ((), ("",))]
)
def test_parts_are_delimited_and_typed(
    one: tuple[str | int, ...], other: tuple[str | int, ...]
) -> None:
    """Moving a character between parts, or quoting a number, changes the secret."""
    assert derive(MASTER, "p", *one) != derive(MASTER, "p", *other)


def test_secrets_differ_by_master_and_purpose_and_repeat_otherwise() -> None:
    """Same master and name give the same bytes; either changed gives others."""
    secret = derive(MASTER, "tenant", "acme", 1)
    assert secret == derive(MASTER, "tenant", "acme", 1)
    assert len(secret) == 32
    assert secret != derive(MASTER, "noise", "acme", 1)
    assert secret != derive(MASTER[::-1], "tenant", "acme", 1)


def test_a_derived_secret_never_changes_between_releases() -> None:
    """A pinned value: changing the encoding would void every tenant's index."""
    assert derive(MASTER, "tenant", "acme", 1).hex() == (
        "7625f35a4142d3f2e111036b318a6ae1456c90a646fb01262e9256f2a7b15712"
    )


@pytest.mark.parametrize("length", [0, 255 * 32 + 1])
def test_impossible_lengths_are_refused(length: int) -> None:
    """HKDF cannot make no bytes, nor more than 8,160."""
    with pytest.raises(GuardError, match="8160"):
        derive(MASTER, "p", length=length)


def test_short_masters_are_refused() -> None:
    """A master key under 16 bytes is a mistake, not a secret."""
    with pytest.raises(GuardError, match="at least 16 bytes, got 15"):
        derive(bytes(15), "p")
