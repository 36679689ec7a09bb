"""Promises of the documentation: nothing that a user can name goes without its heading."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tollkeeper.bench.tables import insert, mentioned
from tollkeeper.cli import app
from tollkeeper.gateway import wire
from tollkeeper.gateway.metrics import Metrics
from tollkeeper.gateway.plans import BUILT_IN, Plan
from tollkeeper.gateway.settings import Settings
from tollkeeper.guard import profiles

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")

CODE = re.compile(r"[a-z]+(_[a-z]+)+")


def _headings(page: Path, level: int) -> list[str]:
    """Return the code-formatted headings of one level."""
    return re.findall(rf"^{'#' * level} `(.+)`$", page.read_text(), re.MULTILINE)


def _verbs(command: Any, path: str) -> Iterator[str]:
    """Yield every verb below a command, in full."""
    children = getattr(command, "commands", None)
    if children is None:
        yield path
        return
    for name, child in children.items():
        yield from _verbs(child, f"{path} {name}")


def _codes() -> set[str]:
    """Return every error code that the gateway's source can put on the wire."""
    codes = {code for _, _, code in wire._STATUSES.values()}
    source = ROOT / "src" / "tollkeeper"
    for file in [*(source / "gateway").glob("*.py"), *(source / "challenge").glob("*.py")]:
        if file.name != "admin.py":  # has codes of its own, for operators
            for node in ast.walk(ast.parse(file.read_text())):
                codes.update(filter(CODE.fullmatch, _strings_given_as_code(node)))
    return codes


def _strings_given_as_code(node: ast.AST) -> Iterator[str]:
    """Yield what one node passes as `code`: by keyword, by default, or by position."""
    given: list[ast.expr] = []
    if isinstance(node, ast.Call):
        given = [word.value for word in node.keywords if word.arg == "code"]
        if getattr(node.func, "id", "").startswith("_bad"):  # helpers that take it last
            given += node.args[1:]
    elif isinstance(node, ast.FunctionDef) and node.args.args[-1:]:
        given = node.args.defaults if node.args.args[-1].arg == "code" else []
    for value in given:
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value


def test_every_setting_has_its_heading() -> None:
    """docs/settings.md explains exactly the settings that exist, each once."""
    assert sorted(_headings(DOCS / "settings.md", 3)) == sorted(Settings.model_fields)


def test_every_verb_has_its_heading() -> None:
    """docs/cli.md explains exactly the verbs that exist, each once."""
    verbs = sorted(_verbs(typer.main.get_command(app), "tollkeeper"))
    assert len(verbs) > 10
    assert sorted(_headings(DOCS / "cli.md", 2)) == verbs


def test_every_error_code_has_its_heading() -> None:
    """docs/errors.md explains exactly the codes that can reach a client, each once."""
    codes = _codes()
    assert {"invalid_api_key", "guard_unavailable", "input_too_long", "unknown_url"} <= codes
    assert sorted(_headings(DOCS / "errors.md", 3)) == sorted(codes)


def test_every_profile_has_its_heading() -> None:
    """docs/profiles.md explains exactly the guard profiles that exist, each once."""
    assert sorted(_headings(DOCS / "profiles.md", 2)) == sorted(profiles.NAMES)


def test_every_metric_is_in_the_table() -> None:
    """docs/operations.md lists exactly the metrics that the admin plane shows."""
    shown = {
        f"{family.name}_total" if family.type == "counter" else family.name
        for family in Metrics().registry.collect()
    }
    listed = re.findall(
        r"^\| `(tollkeeper_\w+)`", (DOCS / "operations.md").read_text(), re.MULTILINE
    )
    assert sorted(listed) == sorted(shown)


def test_the_readme_is_short_and_names_every_verb() -> None:
    """The README has at most 120 lines and its table of verbs is complete."""
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 120
    rows = dict(re.findall(r"^\| `tollkeeper (\w+) ?([^`]*)` \|", text, re.MULTILINE))
    command: Any = typer.main.get_command(app)
    shipped = {
        name: " / ".join(getattr(verb, "commands", {})) for name, verb in command.commands.items()
    }
    assert rows == shipped


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    """A link to a file of the repository, or to a heading in it, finds it."""
    for target, anchor in LINK.findall(page.read_text()):
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in _anchors(file), f"{page.name} links to {target}#{anchor}"


def _anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_every_field_of_a_plan_is_explained() -> None:
    """docs/policy.md has a line for each field of a plan, with its default and that of `toll`."""
    text = (ROOT / "docs" / "policy.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \| (\S+) \| ", text, re.MULTILINE)

    def written(value: Any) -> str:
        words = {"None": "`null`", "()": "none", "False": "`false`"}
        return words.get(str(value)) or (f"`{value}`" if isinstance(value, str) else f"{value:g}")

    def values(plan: Plan) -> dict[str, str]:
        # What holds for predictions has a table of its own.
        fields = {**dict(plan), **dict(plan.predictions)}
        del fields["predictions"]
        return {name: written(value) for name, value in fields.items()}

    def shown(text: str) -> str:
        return f"{float(text):g}" if text[0].isdigit() else text

    assert {name: shown(default) for name, default, _ in rows} == values(Plan())
    assert {name: shown(toll) for name, _, toll in rows} == values(BUILT_IN["toll"])


def test_tables_in_the_docs_are_those_of_the_results() -> None:
    """Pages hold what `tollkeeper bench tables` writes, digit for digit, and miss no result."""
    results = ROOT / "benchmarks" / "results"
    shown: set[str] = set()
    for page in sorted((ROOT / "docs").glob("*.md")):
        text = page.read_text()
        if mentioned(text):
            assert insert(text, results) == text, f"run `tollkeeper bench tables docs/{page.name}`"
            shown |= mentioned(text)
    assert shown == {path.stem for path in results.glob("*.json")}
