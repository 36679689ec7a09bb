"""The demo's story at a tiny size: real gateways, a steep guard, and copies that learn little."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import pytest

pytestmark = [pytest.mark.torch, pytest.mark.slow]
torch = pytest.importorskip("torch")

from tollkeeper.attacks.networks.ngram import NGram  # noqa: E402
from tollkeeper.attacks.text import TextDistillation  # noqa: E402
from tollkeeper.bench.experiment import BenchError  # noqa: E402
from tollkeeper.bench.theft.demo import TWO_MINUTES, Story, play  # noqa: E402
from tollkeeper.bench.theft.demo_picture import draw  # noqa: E402
from tollkeeper.bench.theft.served import Served  # noqa: E402
from tollkeeper.client import open_target  # noqa: E402
from tollkeeper.errors import DataError  # noqa: E402
from tollkeeper.lab.fit import Schedule  # noqa: E402
from tollkeeper.lab.progress import Step  # noqa: E402

TINY = replace(
    TWO_MINUTES,
    guard="cheapest",
    queries=600,
    tasks=("sst2", "ag_news"),
    train=100,
    test=60,
    attack=TextDistillation(
        network=NGram(buckets=512, width=16, hidden=16),
        schedule=Schedule(epochs=2, batch=64),
    ),
    anchors=50,
)


@dataclass
class Told:
    """Everything that a listener heard."""

    steps: list[tuple[str, Step]] = field(default_factory=list)

    def __call__(self, scene: str, step: Step) -> None:
        self.steps.append((scene, step))


@pytest.fixture(scope="module")
def heard() -> Told:
    """What was told while the story was played."""
    return Told()


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, heard: Told) -> Story:
    """The story, once for all tests."""
    folder = tmp_path_factory.mktemp("demo")
    try:
        return play(TINY, seed=0, folder=folder, clock=time.perf_counter, told=heard)
    except DataError as error:
        pytest.skip(str(error))


def test_every_scene_is_told_step_by_step(story: Story, heard: Told) -> None:
    """Asking and training of every scene are told to the last step, at the gateway they are at."""
    del story
    last = {(scene, step.phase): (step.done, step.total) for scene, step in heard.steps}
    for scene in ("thief, profile none", "thief, profile cheapest", "2 sybils, profile cheapest"):
        done, total = last[scene, "asking"]
        assert done == total > 500
        assert last[scene, "training"] == (2, 2)
    assert last["honest user, profile none", "asking"] == (160, 160)


def test_without_a_guard_the_honest_user_gets_the_encoder_itself(story: Story) -> None:
    """The unguarded answers rank and classify exactly as clean ones do."""
    bare, guarded = story.honest
    assert (bare.guard, guarded.guard) == ("none", "cheapest")
    assert bare.recall10 == 1
    assert bare.accuracy == story.victim.accuracy["sst2"]
    assert guarded.recall10 < 1  # 160 inputs are already dear under so steep a price
    assert bare.queries == guarded.queries == 160


def test_each_attacker_spends_what_it_was_given(story: Story) -> None:
    """Thief and sybils pay one budget, and the operator counts the same inputs."""
    assert [copy.who for copy in story.copies] == ["thief", "thief", "2 sybils"]
    for copy in story.copies:
        assert not copy.partial
        assert copy.asking_s > 0 < copy.training_s
        assert abs(copy.queries - TINY.queries) <= 1  # an odd rest of the budget buys no pair
    for copy in story.copies[1:]:
        seen = [visit.queries for visit in story.visits if visit.tenant in copy.tenants]
        assert len(seen) == len(copy.tenants)
        # What an account asks to learn the embedding width is asked before the attack begins.
        assert copy.queries <= sum(seen) <= copy.queries + len(seen)


def test_the_operator_sees_who_walks_far(story: Story) -> None:
    """Coverage grows with every request, and noise starts after the free inputs."""
    assert [visit.tenant for visit in story.visits] == ["honest", "thief", "sybil-1", "sybil-2"]
    for visit in story.visits:
        coverage = [step.coverage for step in visit.course]
        assert coverage == sorted(coverage)
        assert visit.coverage == coverage[-1] > 0
        assert visit.course[-1].inputs == visit.queries > visit.free
        assert visit.course[-1].noise > 0
        assert visit.noise > 0


def test_scores_are_on_one_scale(story: Story) -> None:
    """The victim keeps all neighbors; fidelity is measured between untrained copy and victim."""
    assert story.victim.recall10 == 1
    assert story.untrained.recall10 < 0.5
    gained = sum(story.victim.accuracy.values()) - sum(story.untrained.accuracy.values())
    for copy in story.copies:
        more = sum(copy.scores.accuracy.values()) - sum(story.untrained.accuracy.values())
        assert copy.fidelity == pytest.approx(more / gained)


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_picture_is_drawn(story: Story, tmp_path: Path, kind: str) -> None:
    """The ending chooses the format, and the SVG names every tenant of the guarded gateway."""
    path = tmp_path / f"demo.{kind}"
    draw(story, path)
    content = path.read_bytes()
    assert content.startswith(b"\x89PNG" if kind == "png" else b"<?xml")


def test_a_gateway_answers_its_tenants_and_its_operator(tmp_path: Path) -> None:
    """A key works at once, and the operator sees its inputs and no other tenant's."""
    with Served(tmp_path / "data", profile="cheapest", encoder="builtin:text") as served:
        key = served.key("one")
        served.key("two")
        with open_target(served.url, transcript=tmp_path / "t", api_key=key, dim=384) as target:
            assert target.embed(["a lost card", "the weather"]).shape == (2, 384)
        seen = served.visit("one")
        assert (seen.queries, seen.charged, seen.free) == (2, 2, 2)
        assert served.visit("two").course == ()
        with pytest.raises(BenchError, match="404"):
            served.visit("three")


def test_a_gateway_ends_with_its_block(tmp_path: Path) -> None:
    """After the block the process is gone and its port closed; `none` has no books to show."""
    with Served(tmp_path / "data", profile="none", encoder="builtin:text") as served:
        served.key("one")
        with pytest.raises(BenchError, match="keeps no books"):
            served.visit("one")
    assert served.process.poll() is not None
    with pytest.raises(httpx2.TransportError):
        httpx2.get(served.url.removesuffix("/v1") + "/livez")


def test_a_gateway_that_cannot_start_says_why(tmp_path: Path) -> None:
    """The last line of the server's log is the message."""
    with pytest.raises(BenchError, match=r"did not start: .*no-such-profile"):
        Served(tmp_path / "data", profile="no-such-profile", encoder="builtin:text")
