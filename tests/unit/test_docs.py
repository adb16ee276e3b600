"""The documents say what the program does: links resolve, references are current, routes and codes are all there."""

import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from fairway.serve.openapi import DOCUMENT
from fairway.web.security import ROLES

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "fairway"
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*/*.md"), *ROOT.glob("bench/*.md")]
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
ROUTE = re.compile(r"^\| `([A-Z]+) (/[^`]*)` \|", re.MULTILINE)
CODE = re.compile(r'code="([a-z_]+)"')
# Written so that this file does not name one itself.
HOSTS = ("pypi" + ".org", "python" + "hosted.org", "anaconda" + ".org", "registry.npm" + "js", "crates" + ".io")
GATEWAY_CODES = ("serve/*.py", "contract/careful.py", "contract/request.py")


def _reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_reference", ROOT / "docs" / "make_reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _http() -> tuple[str, str]:
    """The gateway's part and the console's."""
    gateway, _, console = (ROOT / "docs" / "reference" / "http.md").read_text().partition("\n## Console")
    assert console
    return gateway, console


def _listed(part: str) -> set[str]:
    """Codes of the part's table."""
    rows = re.findall(r"^\| [\d, ]+ \| ([^|]+) \|", part, re.MULTILINE)
    return {code for row in rows for code in re.findall(r"`([a-z_]+)`", row)}


def _raised(*patterns: str) -> set[str]:
    files = [file for pattern in patterns for file in SOURCE.glob(pattern)]
    return {code for file in files for code in CODE.findall(file.read_text())}


def _files() -> Iterator[Path]:
    """What git knows of, and what would be added; without git, everything that is not hidden."""
    done = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    names = done.stdout.splitlines() if done.returncode == 0 else []
    for path in map(ROOT.joinpath, names) if names else ROOT.rglob("*"):
        hidden = any(part.startswith(".") and part != ".ci" for part in path.relative_to(ROOT).parts[:-1])
        if path.is_file() and not hidden and path.stat().st_size < 2**22:
            yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_resolve(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link and not link.startswith("#")]
    broken = [link for link in links if not (page.parent / link.partition("#")[0]).exists()]
    assert not broken


def test_no_file_names_a_package_registry() -> None:
    found = []
    for path in _files():
        text = path.read_bytes().decode("utf-8", errors="ignore").lower()
        found += [f"{path.relative_to(ROOT)}: {host}" for host in HOSTS if host in text]
    assert not found


@pytest.mark.parametrize("name", ["commands.md", "settings.md"])
def test_the_generated_reference_is_current(name: str) -> None:
    made = _reference().PAGES[name]()
    assert made == (ROOT / "docs" / "reference" / name).read_text(), "run: python docs/make_reference.py"


def test_every_route_is_in_the_reference() -> None:
    gateway, console = _http()
    spoken = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    assert set(ROUTE.findall(gateway)) == spoken
    assert set(ROUTE.findall(console)) == set(ROLES)
    roles = dict(re.findall(r"^\| `([A-Z]+ /[^`]*)` \| (\w+) \|", console, re.MULTILINE))
    assert roles == {f"{method} {path}": role or "open" for (method, path), role in ROLES.items()}


def test_every_code_is_in_the_reference() -> None:
    gateway, console = _http()
    assert _raised(*GATEWAY_CODES) <= _listed(gateway)
    assert _raised("web/*.py") <= _listed(console)
