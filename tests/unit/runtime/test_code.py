"""What belongs to model.py, and importing it."""

import sys

import pytest

from fairway.errors import ModelCodeError
from fairway.runtime.code import closure, import_code


def write(root, **files):
    for name, text in files.items():
        path = root / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_everything_that_is_imported_belongs_and_nothing_else(tmp_path):
    write(tmp_path, model="import helper\nfrom shop.prices import VAT\n", helper="from shop import names\n")
    write(tmp_path, shop__prices="from .rates import VAT\n", shop__rates="VAT = 1\n", shop__names="")
    write(tmp_path, other="", shop__unused="")
    (tmp_path / "shop" / "__init__.py").write_text("")
    wanted = ["helper.py", "model.py", "shop/__init__.py", "shop/names.py", "shop/prices.py", "shop/rates.py"]
    assert list(closure(tmp_path)) == wanted


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"model": "def features(:\n"}, "model.py line 1"),
        ({"model": "import nowhere_to_be_found\n"}, "model.py line 1 imports nowhere_to_be_found"),
        ({"model": "import statistics\n", "statistics": ""}, "rename it"),
        ({"helper": ""}, "is missing"),
    ],
)
def test_what_can_not_be_imported_is_said_before_anything_runs(tmp_path, files, said):
    write(tmp_path, **files)
    with pytest.raises(ModelCodeError, match=said):
        closure(tmp_path)


def test_an_import_that_may_fail_is_left_to_the_code(tmp_path):
    write(tmp_path, model="try:\n    import nowhere_to_be_found\nexcept ImportError:\n    pass\n")
    assert list(closure(tmp_path)) == ["model.py"]


def test_two_projects_with_the_same_module_names_stay_apart(tmp_path):
    for name in ("one", "zwei und mehr ü"):
        (tmp_path / name).mkdir()
        write(tmp_path / name, model="import helper\nfrom .helper import NAME as again\nNAME = helper.NAME\n",
              helper=f"NAME = {name!r}\n")  # fmt: skip
    first = import_code(tmp_path / "one")
    second = import_code(tmp_path / "zwei und mehr ü")
    assert (first.module.NAME, second.module.NAME) == ("one", "zwei und mehr ü")
    assert second.module.again == "zwei und mehr ü"
    assert not list(tmp_path.rglob("__pycache__"))
    assert "model" not in sys.modules


def test_views_are_found_in_their_order(tmp_path):
    text = "import fairway\n" + "".join(
        f'@fairway.view(source="s", entity="e", window="{n}h")\ndef view_{n}(s):\n    return s\n' for n in (3, 1, 2)
    )
    write(tmp_path, model=text)
    assert [view.name for view in import_code(tmp_path).views] == ["view_3", "view_1", "view_2"]
