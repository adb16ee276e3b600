"""`import fairway` is light, and `__all__` says what is there."""

import subprocess
import sys

import fairway


def test_all_is_sorted_and_loads() -> None:
    assert fairway.__all__ == sorted(fairway.__all__)
    assert set(fairway.__all__) == set(fairway._HOME)
    for name in fairway.__all__:
        assert callable(getattr(fairway, name))


def test_import_loads_no_heavy_module() -> None:
    code = "import fairway, sys; print([m for m in ('numpy', 'polars', 'sqlalchemy', 'sklearn') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
