"""How light it starts: `import fairway` and `fairway --help`."""

from common import FAIRWAY, PYTHON, cpu_of, median, table

RUNS = 7


def main() -> None:
    bare = median([cpu_of([PYTHON, "-c", "pass"])[1] for _ in range(RUNS)])
    imported = median([cpu_of([PYTHON, "-c", "import fairway"])[1] for _ in range(RUNS)])
    help_wall = median([cpu_of([*FAIRWAY, "--help"])[0] for _ in range(RUNS)])
    table(
        "start (medians of 7)",
        [
            ("import fairway, CPU over a bare python", f"{(imported - bare) * 1000:.0f} ms", "<= 150 ms"),
            ("fairway --help, wall", f"{help_wall:.2f} s", "<= 0.3 s"),
        ],
    )


if __name__ == "__main__":
    main()
