"""Promises of detector files."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest

from tollkeeper.detectors import bundle as bundles
from tollkeeper.detectors.base import AccountDetector, Detector
from tollkeeper.detectors.bundle import Bundle, load_bundle, probe_for, save_bundle
from tollkeeper.detectors.packing import array_bytes, read_array
from tollkeeper.errors import ConfigurationError
from tollkeeper.types import Images, Probabilities, Scores

SHAPE, CLASSES = (1, 8, 8), 3


class Toy:
    """Scores by the largest probability, scaled."""

    kind: ClassVar[str] = "toy"

    def __init__(self, name: str, scale: float, offset: Scores) -> None:
        self.name, self.scale, self.offset = name, scale, offset

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        found: Scores = self.offset - self.scale * outputs.max(axis=1).astype(np.float64)
        return found

    def pack(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        return {"name": self.name, "scale": self.scale}, {"offset": array_bytes(self.offset)}

    @classmethod
    def unpack(
        cls, parameters: Mapping[str, Any], blobs: Mapping[str, bytes], *, threads: int
    ) -> Self:
        assert threads == 1
        offset = read_array(blobs["offset"], dimensions=1)
        return cls(parameters["name"], parameters["scale"], offset)


class Counter(Toy):
    """Counts an account's queries."""

    kind: ClassVar[str] = "counter"
    state_bytes = 4

    def empty(self) -> bytes:
        return bytes(4)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        count = int.from_bytes(state, "big") + len(inputs)
        return np.full(len(inputs), float(count)), count.to_bytes(4, "big")


class Linear:
    """A classifier with random weights."""

    name = "linear"
    dim = CLASSES
    input_shape: tuple[int, int, int] | None = SHAPE

    def __init__(self, seed: int = 0) -> None:
        self.weights = np.random.default_rng(seed).normal(size=(64, CLASSES)) / 4

    def embed(self, inputs: Images) -> Probabilities:
        logits = inputs.reshape(len(inputs), -1) @ self.weights
        rows = np.exp(logits - logits.max(axis=1, keepdims=True))
        found: Probabilities = (rows / rows.sum(axis=1, keepdims=True)).astype(np.float32)
        return found


KINDS = {"toy": f"{__name__}:Toy", "counter": f"{__name__}:Counter"}


def made(**changes: Any) -> Bundle:
    """Return a bundle of two toys that differs from the usual one in `changes`."""
    offset = np.array([1.0])
    scores = np.linspace(0, 1, 99)
    probe = probe_for(SHAPE)
    whole = Bundle(
        victim="linear",
        input_shape=SHAPE,
        classes=CLASSES,
        detectors={"a": Toy("a", 1.0, offset), "b": Toy("b", 2.0, offset)},
        recommended="b",
        honest={"a": scores, "b": scores},
        account=Counter("counter", 1.0, offset),
        graphs={"surrogate": b"graph"},
        probe=probe,
        probe_answers=Linear().embed(probe),
    )
    return replace(whole, **changes)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Return the file of the usual bundle."""
    save_bundle(tmp_path / "made.tkd", made())
    return tmp_path / "made.tkd"


def test_a_bundle_comes_back_as_it_was(stored: Path) -> None:
    """Detectors, the account's detector, honest scores, graphs and the probe survive the file."""
    found, wanted = load_bundle(stored, kinds=KINDS), made()

    answers = Linear().embed(wanted.probe)
    assert found.recommended == "b"
    assert found.graphs == wanted.graphs
    assert (found.victim, found.input_shape, found.classes) == ("linear", SHAPE, CLASSES)
    for name, detector in found.detectors.items():
        assert isinstance(detector, Detector)
        expected = wanted.detectors[name].score(wanted.probe, answers)
        assert np.array_equal(detector.score(wanted.probe, answers), expected)
        assert np.array_equal(found.honest[name], wanted.honest[name])
    assert isinstance(found.account, AccountDetector)
    assert found.account.update(found.account.empty(), wanted.probe, answers)[0][0] == 16
    assert np.array_equal(found.probe, wanted.probe)
    assert np.array_equal(found.probe_answers, wanted.probe_answers)


def test_equal_bundles_are_equal_files_and_share_what_they_share(stored: Path) -> None:
    """Two detectors with one blob store it once, and a second writing gives the same bytes."""
    again = stored.with_name("again.tkd")
    save_bundle(again, made())

    assert again.read_bytes() == stored.read_bytes()
    with zipfile.ZipFile(stored) as archive:
        # The header, one offset, one row of honest scores, one graph, the probe and its answers.
        assert len(archive.namelist()) == 6


def test_a_bundle_without_an_account_detector_has_none(tmp_path: Path) -> None:
    """`account` may be None."""
    save_bundle(tmp_path / "x.tkd", made(account=None))

    assert load_bundle(tmp_path / "x.tkd", kinds=KINDS).account is None


def test_its_own_victim_is_accepted() -> None:
    """The victim that answered the probe is known again, whatever it is called."""
    victim = Linear()
    victim.name = "another-name"
    made(graphs={}).check_victim(victim)


class Failing(Counter):
    """Finds what it is told to, or fails."""

    def __init__(self, found: Any) -> None:
        super().__init__("failing", 1.0, np.ones(1))
        self.found = found

    def score(self, inputs: Images, outputs: Probabilities) -> Scores:
        if isinstance(self.found, Exception):
            raise self.found
        return np.asarray(self.found)

    def update(self, state: bytes, inputs: Images, outputs: Probabilities) -> tuple[Scores, bytes]:
        return self.score(inputs, outputs), state


@pytest.mark.parametrize(
    "found", [KeyError("tail"), np.zeros(15), np.full(16, np.nan)], ids=["raises", "few", "nan"]
)
@pytest.mark.parametrize("place", ["detector", "account"])
def test_what_cannot_look_at_the_probe_does_not_start(found: Any, place: str) -> None:
    """A detector that would fail at every request fails once, by name, before the first."""
    bad = Failing(found)
    change = {"account": bad} if place == "account" else {"detectors": {"a": bad, "b": bad}}
    with pytest.raises(ConfigurationError, match=r"failing of the detector file fails.*fit anew"):
        made(graphs={}, **change).check_victim(Linear())
    with pytest.raises(ConfigurationError, match=r"surrogate of the detector file fails"):
        made().check_victim(Linear())


@pytest.mark.parametrize(("moved", "accepted"), [(0.01, True), (0.05, False)])
def test_a_victim_may_round_and_not_be_retrained(moved: float, accepted: bool) -> None:
    """Two decimals of another machine pass; answers a twentieth away are another model's."""

    class Moved(Linear):
        def embed(self, inputs: Images) -> Probabilities:
            rows = super().embed(inputs)
            rows[0] += moved * np.array([1, -1, 0]) * (1 if rows[0, 1] > moved else -1)
            return rows

    bundle = made(graphs={})
    if accepted:
        bundle.check_victim(Moved())
        return
    with pytest.raises(ConfigurationError, match="another victim"):
        bundle.check_victim(Moved())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"dim": 4}, "4 classes"),
        ({"input_shape": (1, 8, 9)}, r"\(1, 8, 9\)"),
        ({"input_shape": None}, "None"),
        ({"weights": Linear(1).weights}, "answers to a probe"),
    ],
)
def test_another_victim_is_refused_by_name(change: dict[str, Any], words: str) -> None:
    """Another shape, class count or set of weights fails with both names in one line."""
    victim = Linear()
    victim.name = "other"
    for name, value in change.items():
        setattr(victim, name, value)

    with pytest.raises(ConfigurationError, match=words) as caught:
        made().check_victim(victim)
    assert "another victim" in str(caught.value)
    assert "'linear'" in str(caught.value)
    assert "'other'" in str(caught.value)


def test_answers_that_are_no_numbers_are_another_victims() -> None:
    """NaN in the answers to the probe does not pass for sameness."""
    victim = Linear()
    victim.weights = victim.weights * np.nan
    with pytest.raises(ConfigurationError, match="another victim"):
        made().check_victim(victim)


def test_a_rank_is_a_conformal_one() -> None:
    """Of 99 honest scores, one above all ranks 99 of 100; ties rank below their equals."""
    bundle = made()

    assert bundle.rank(np.array([-1.0, 0.0, 2.0])).tolist() == [0, 0, 0.99]
    assert bundle.rank(np.array([1.0]), "a").tolist() == [0.98]


@pytest.mark.parametrize(
    "change",
    [
        {"recommended": "c"},
        {"honest": {"a": np.zeros(3)}},
        {"honest": {"a": np.zeros(3), "b": np.array([2.0, 1.0])}},
        {"honest": {"a": np.zeros(3), "b": np.array([])}},
        {"classes": 4},
        {"input_shape": (1, 8, 9)},
    ],
)
def test_parts_that_do_not_belong_together_are_refused(change: dict[str, Any]) -> None:
    """A bundle is consistent or is not made."""
    with pytest.raises(ConfigurationError, match="expected"):
        made(**change)


def test_what_cannot_be_stored_is_named(tmp_path: Path) -> None:
    """A detector without pack is refused by its class, before a file is written."""

    class Bare:
        name = "bare"

        def score(self, inputs: Images, outputs: Probabilities) -> Scores:
            raise NotImplementedError

    bare = made(detectors={"a": Bare()}, honest={"a": np.zeros(1)}, recommended="a")
    with pytest.raises(ConfigurationError, match="Bare cannot be stored"):
        save_bundle(tmp_path / "x.tkd", bare)
    assert not (tmp_path / "x.tkd").exists()


def test_a_missing_folder_is_a_clear_error(tmp_path: Path) -> None:
    """Files that cannot be written or read are named."""
    with pytest.raises(ConfigurationError, match="cannot write"):
        save_bundle(tmp_path / "no" / "x.tkd", made())
    with pytest.raises(ConfigurationError, match="cannot read the detector file"):
        load_bundle(tmp_path / "x.tkd")


def test_any_damage_is_one_clear_error(stored: Path) -> None:
    """A file cut short or with bytes changed never fails with anything but ConfigurationError."""
    good = stored.read_bytes()
    rng = np.random.default_rng(5)
    broken = stored.with_name("broken.tkd")
    told = []
    for trial in range(150):
        data = bytearray(good[: rng.integers(len(good))] if trial % 3 == 0 else good)
        for place in rng.integers(len(data), size=4) if data else ():
            data[place] ^= int(rng.integers(1, 256))
        broken.write_bytes(data)
        try:
            load_bundle(broken, kinds=KINDS)
        except ConfigurationError as error:
            told.append(str(error))
    assert len(told) > 100
    assert all("broken.tkd" in line and "\n" not in line for line in told)


def changed(stored: Path, **header: Any) -> Path:
    """Return a copy whose header says something else."""
    target = stored.with_name("changed.tkd")
    with zipfile.ZipFile(stored) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name == "bundle.json":
                data = json.dumps({**json.loads(data), **header}).encode()
            new.writestr(name, data)
    return target


@pytest.mark.parametrize(
    ("header", "words"),
    [
        ({"format": "x"}, "format"),
        ({"version": 2}, "version 1, got 2"),
        ({"detectors": {"a": {"kind": "os", "parameters": {}, "blobs": {}}}}, "unknown kind"),
        ({"detectors": {"a": {"kind": "toy", "parameters": {}, "blobs": {}}}}, "do not fit"),
        ({"detectors": []}, "cannot use"),
        ({"input_shape": "ab"}, "cannot use"),
        ({"honest": None}, "cannot use"),
        ({"probe": "blobs/none"}, "blobs/none"),
    ],
)
def test_a_header_that_lies_is_a_clear_error(
    stored: Path, header: dict[str, Any], words: str
) -> None:
    """Other formats, unknown kinds and missing parts are refused; nothing unknown is imported."""
    with pytest.raises(ConfigurationError, match=words):
        load_bundle(changed(stored, **header), kinds=KINDS)


def test_no_more_is_unpacked_than_allowed(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A small file that unpacks to much is refused at the limit."""
    bomb = stored.with_name("bomb.tkd")
    shutil.copy(stored, bomb)
    with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("blobs/zeros", bytes(10_000_000))
    monkeypatch.setattr(bundles, "LIMIT_BYTES", 1_000_000)

    assert bomb.stat().st_size < 100_000
    with pytest.raises(ConfigurationError, match="larger than"):
        load_bundle(bomb, kinds=KINDS)
    assert load_bundle(stored, kinds=KINDS).victim == "linear"


def test_the_limit_holds_for_all_parts_together(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts that are small one by one are refused where they are not together."""
    monkeypatch.setattr(bundles, "LIMIT_BYTES", 1_000_000)
    for count, refused in ((1, False), (2, True)):
        bomb = stored.with_name("bomb.tkd")
        shutil.copy(stored, bomb)
        with zipfile.ZipFile(bomb, "a", zipfile.ZIP_DEFLATED) as archive:
            for number in range(count):
                archive.writestr(f"blobs/{number}", bytes(600_000))
        if refused:
            with pytest.raises(ConfigurationError, match="larger than"):
                load_bundle(bomb, kinds=KINDS)
        else:
            load_bundle(bomb, kinds=KINDS)


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_only_deflated_parts_are_read(stored: Path, method: int) -> None:
    """Other compressions, whose damage raises other errors, are refused by name."""
    with zipfile.ZipFile(stored, "a") as archive:
        archive.writestr("blobs/x", bytes(100), method)
    with pytest.raises(ConfigurationError, match="blobs/x is compressed"):
        load_bundle(stored, kinds=KINDS)


def test_an_array_promises_no_more_than_its_bytes_hold() -> None:
    """A header of a huge array over few bytes, objects and NaN are refused without reserving."""
    good = array_bytes(np.zeros((4,)))
    with pytest.raises(ValueError, match="damaged array"):
        read_array(good.replace(b"(4,)", b"(9999999999,)")[: len(good)], dimensions=1)
    with pytest.raises(ValueError, match="damaged array"):
        read_array(array_bytes(np.array(["text"])), dimensions=1)
    with pytest.raises(ValueError, match="finite"):
        read_array(array_bytes(np.array([np.nan])), dimensions=1)
    with pytest.raises(ValueError, match="2 dimensions"):
        read_array(good, dimensions=2)
