"""The layers of docs/architecture.md: imports go downwards only; packages on one line don't import each other."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src" / "fairway"

LAYERS = [
    {"cli"},
    {"testing"},
    {"process"},
    {"web"},
    {"fleet", "serve"},
    {"keep", "path"},
    {"rollout"},
    {"checks", "monitor"},
    {"training", "registry"},
    {"runtime"},
    {"data"},
    {"store"},
    {"contract", "stats"},
    {"_optional"},
    {"errors", "clock", "fingerprint"},
]
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}


def imported_parts(path: Path) -> list[tuple[int, str]]:
    """(line, part of fairway) for every import in a file, local ones included."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "fairway" and len(parts) > 1 and parts[1] in RANK:
                found.append((node.lineno, parts[1]))
    return found


def part_of(path: Path) -> str:
    relative = path.relative_to(SOURCE)
    return relative.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda p: str(p.relative_to(SOURCE)))
def test_imports_go_downwards(path: Path) -> None:
    part = part_of(path)
    if part == "__init__":
        return  # the front door names its homes as text
    assert part in RANK, f"{path} belongs to no layer"
    wrong = [
        f"{path.relative_to(SOURCE)}:{line}: {part} imports {other}"
        for line, other in imported_parts(path)
        if other != part and RANK[other] <= RANK[part]
    ]
    assert not wrong, "\n".join(wrong)


def test_only_one_module_makes_engines() -> None:
    makers = [p for p in SOURCE.rglob("*.py") if "create_engine" in p.read_text()]
    assert makers == [SOURCE / "store" / "engine.py"]


def test_time_comes_only_from_clock() -> None:
    words = ("datetime.now(", "time.time(", "utcnow(", "time.monotonic(", "date.today(")
    for path in SOURCE.rglob("*.py"):
        if path.name != "clock.py" or path.parent != SOURCE:
            for number, line in enumerate(path.read_text().splitlines(), 1):
                assert not any(word in line for word in words), f"{path.relative_to(SOURCE)}:{number}: {line.strip()}"
