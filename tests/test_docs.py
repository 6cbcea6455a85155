"""The documents keep their promises: links lead somewhere, names exist, versions agree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from helpers import restormer

from restormer_cli.evaluation.metrics import METRICS

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("scripts/**/*.md")])
LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")


def anchors(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them from headings."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)
    return set(plain)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for link in LINK.findall(text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{page.name}: {link}"


def test_there_are_links_to_test() -> None:
    assert len(PAGES) >= 3
    assert any(LINK.search(page.read_text(encoding="utf-8")) for page in PAGES)


def test_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 150


def test_hooks_check_with_the_version_that_the_tests_use() -> None:
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    used = re.search(r"^ruff==(\S+)$", constraints, flags=re.M)
    assert used is not None
    assert f"rev: v{used[1]} " in hooks


def tree(page: Path) -> dict[str, bool]:
    """The paths in the first code block of a page, with True for folders.

    A line is indented by two blanks a level, and holds names, then two blanks and what is there.
    """
    block = re.search(r"^```\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    assert block is not None
    named: dict[str, bool] = {}
    above: list[str] = []
    for line in block[1].splitlines():
        level = (len(line) - len(line.lstrip())) // 2
        for name in re.split(r" {2,}", line.strip())[0].split(", "):
            path = "/".join([*above[:level], name.rstrip("/")])
            assert path not in named, f"{path} is named twice"
            named[path] = name.endswith("/")
            above[level:] = [name.rstrip("/")]
    return named


def test_architecture_names_what_exists() -> None:
    named = tree(ROOT / "ARCHITECTURE.md")
    assert {path: (ROOT / path).is_dir() for path in named} == named
    assert {path for path in named if not (ROOT / path).exists()} == set()


def test_architecture_names_all_of_the_package() -> None:
    package = ROOT / "restormer_cli"
    made = {".pyc", ".so", ".dll", ".sha256"}  # not in the repository
    files = {path for path in package.rglob("*") if path.suffix not in made}
    wanted = {path for path in files if path.name not in {"__init__.py", "__pycache__"}}
    wanted = {path for path in wanted if path.parent.name != "papers"}
    named = tree(ROOT / "ARCHITECTURE.md")
    assert {path.relative_to(ROOT).as_posix() for path in wanted} - named.keys() == set()


@pytest.mark.parametrize("command", ["derain", "denoise", "deblur", "dual-pixel"])
def test_usage_explains_every_option(command: str) -> None:
    options = set(re.findall(r"(?<![\w-])--?[a-z0][\w-]*", restormer(command, "--help").out))
    assert {"--input-dir", "-0", "--log-json"} <= options
    usage = (ROOT / "docs" / "usage.md").read_text(encoding="utf-8")
    rows = "".join(line.split("|")[1] for line in usage.splitlines() if line.startswith("| `-"))
    explained = set(re.findall(r"(?<![\w-])--?[a-z0][\w-]*", rows))
    assert options - explained - {"--report"} == set()
    assert "`--report FILE` is the old name" in usage


def test_pages_name_modules_that_exist() -> None:
    modules = [path.relative_to(ROOT).as_posix() for path in sources()]
    for page in PAGES:
        for name in re.findall(r"`([\w./]+\.py)`", page.read_text(encoding="utf-8")):
            assert any(f"/{path}".endswith(f"/{name}") for path in modules), f"{page.name}: {name}"


def test_recipes_name_what_stands_in_the_code() -> None:
    code = "".join(path.read_text(encoding="utf-8") for path in sources())
    named = re.findall(r"`([A-Za-z_]\w*)(?:\(\))?`", (ROOT / "CONTRIBUTING.md").read_text("utf-8"))
    assert len(named) > 30
    assert {name for name in named if not re.search(rf"\b{name}\b", code)} == set()


def sources() -> list[Path]:
    return [
        p for folder in ("restormer_cli", "scripts", "tests") for p in (ROOT / folder).rglob("*.py")
    ]


def test_evaluation_page_describes_every_metric() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| `(\w+)` \|.*\| (higher|lower) \|$", page, flags=re.M)
    assert [(label, key, better == "higher") for label, key, better in rows] == [
        (metric.label, key, metric.higher_is_better) for key, metric in METRICS.items()
    ]
