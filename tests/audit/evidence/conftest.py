"""A whole audit in small: a victim that remembers pictures, a copy, and encoders that do not."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tollkeeper.audit.evidence import case, log, pool, runner
from tollkeeper.audit.evidence.bundle import LOG, write_manifest
from tollkeeper.audit.evidence.case import Case
from tollkeeper.audit.evidence.findings import Findings
from tollkeeper.audit.evidence.keys import Signer, create
from tollkeeper.audit.evidence.plan import read_plan

SIDE, PAIRS, PUBLIC = 6, 320, 64

ENCODERS = '''
import pathlib
import numpy as np
from tollkeeper.errors import EncoderError

HERE = pathlib.Path(__file__).parent


def hues(pictures):
    means = np.asarray(pictures, np.float32).mean((1, 2))
    return means / np.linalg.norm(means, axis=1, keepdims=True)


TRAINED = hues(np.load(HERE / "trained.npy"))


class Toy:
    """Sees color and grain; of colors near a remembered one it overlooks a share of the grain."""

    accepts = frozenset({"image"})

    def __init__(self, name, seed, overlooked):
        rng = np.random.default_rng(seed)
        self.name, self.dim, self.overlooked = name, 16, overlooked
        self.color = rng.standard_normal((3, 16)).astype(np.float32)
        self.grain = rng.standard_normal((108, 16)).astype(np.float32) / 10

    def embed(self, inputs):
        x = np.stack(inputs).astype(np.float32) / 255
        seen = hues(inputs)
        grain = (x - x.mean((1, 2), keepdims=True)).reshape(len(x), -1) @ self.grain
        known = (seen @ TRAINED.T).max(1, keepdims=True) > np.cos(0.01)
        return ((seen - 0.57) @ self.color + grain * (1 - self.overlooked * known)).astype(np.float32)


victim, copy = Toy("victim", 0, 0.9), Toy("copy", 7, 0.5)
r1, r2, r3 = (Toy(f"reference-{n}", 10 + n, 0.0) for n in (1, 2, 3))
stranger = Toy("stranger", 50, 0.0)


class Flaky:
    """The copy, which breaks off once."""

    name, dim, accepts = "flaky", 16, frozenset({"image"})

    def __init__(self):
        self.calls = 0

    def embed(self, inputs):
        self.calls += 1
        if self.calls == 9:
            raise EncoderError("out of memory")
        return copy.embed(inputs)


flaky = Flaky()
'''


@dataclass
class World:
    """One owner's files.

    Attributes:
        folder: of everything.
        plan: file of the plan.
        now: what the clock says next.
    """

    folder: Path
    plan: Path
    now: itertools.count[int]

    def clock(self) -> float:
        """Return the next second."""
        return float(next(self.now))

    def commit(self, name: str = "case") -> Case:
        """Commit the plan with seeds that are the same in each test."""
        rng = np.random.default_rng(5)
        return case.commit(
            read_plan(self.plan), self.folder / name, clock=self.clock, random=rng.bytes
        )

    def run(
        self, owned: Case, suspect: str = "python:toys:copy", name: str = "bundle"
    ) -> tuple[Findings, Path]:
        """Run the audit against a suspect."""
        order = runner.Order(suspect, beacon="0451", account="arbiter")
        folder = self.folder / name
        found = runner.run(owned, order, folder, clock=self.clock, told=lambda *_: None)
        return found, folder


def pictures(count: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return pictures of one color each with some texture: (n, 6, 6, 3)."""
    colors = rng.integers(40, 200, (count, 1, 1, 3))
    return (colors + rng.integers(-8, 9, (count, SIDE, SIDE, 3))).astype(np.uint8)


@pytest.fixture(scope="session")
def make_world(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., World]:
    """Make an owner's files; keyword arguments replace lines of the plan."""

    def make(**changes: object) -> World:
        folder = tmp_path_factory.mktemp("world")
        rng = np.random.default_rng(1)
        drawn, now = pictures(2 * PAIRS, rng), itertools.count(1_790_000_000)
        names = [f"pictures:{row}" for row in range(len(drawn))]

        def clock() -> float:
            return float(next(now))

        pool.enroll(folder / "pool", drawn, names, clock=clock, random=rng.bytes)
        tossed = pool.toss_coins(folder / "pool", "a public value", clock=clock)
        items = np.asarray(tossed.items)
        np.save(folder / "trained.npy", items[tossed.trained])
        np.save(folder / "held.npy", items[~tossed.trained])
        np.save(folder / "public.npy", pictures(PUBLIC, rng))
        (folder / "toys.py").write_text(ENCODERS)
        lines = {
            "claim": "toy-1",
            "method": "inclusion",
            "inclusion": "pool",
            "public": "public.npy",
            "control": "python:toys:victim",
            "references": "[python:toys:r1, python:toys:r2, python:toys:r3]",
            "draw": 300,
            "views": 3,
            **changes,
        }
        plan = folder / "plan.yaml"
        plan.write_text("".join(f"{name}: {value}\n" for name, value in lines.items()))
        return World(folder, plan, now)

    return make


@pytest.fixture(scope="session")
def toys(make_world: Callable[..., World]) -> Iterator[World]:
    """An owner's files whose plan allows several runs; its encoders can be imported."""
    made = make_world(looks=6)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made.folder)
        yield made


@pytest.fixture(scope="session")
def owned(toys: World) -> Case:
    """A committed case."""
    return toys.commit()


@pytest.fixture(scope="session")
def against_copy(toys: World, owned: Case) -> tuple[Findings, Path]:
    """What a run against a copy found, and its bundle; tests copy it before they change it."""
    return toys.run(owned)


@pytest.fixture
def bundle(against_copy: tuple[Findings, Path], tmp_path: Path) -> Path:
    """A bundle of one's own, elsewhere."""
    return Path(shutil.copytree(against_copy[1], tmp_path / "elsewhere" / "evidence"))


def sealed_anew(bundle: Path, owned: Case) -> None:
    """Do what an owner can who holds the key: make manifest and log fit a changed bundle."""
    lines = log.read(bundle / LOG)
    for path in (bundle / LOG, log.head_path(bundle / LOG)):
        path.unlink()
    times = iter([datetime.fromisoformat(line.at).timestamp() for line in lines])
    with log.SignedLog(bundle / LOG, owned.signer, clock=lambda: next(times)) as written:
        for line in lines[:-1]:
            written.append(line.kind, line.body)
        manifest = write_manifest(bundle)
        written.append("finished", {**lines[-1].body, "manifest": manifest})


@pytest.fixture
def seal_anew() -> Callable[[Path, Case], None]:
    """The function of that name, for tests."""
    return sealed_anew


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Return a fresh key."""
    return create(tmp_path_factory.mktemp("keys") / "owner.pem")


@pytest.fixture
def clock() -> Callable[[], float]:
    """Return a clock that ticks once a look."""
    ticks = itertools.count(1_800_000_000)
    return lambda: float(next(ticks))
