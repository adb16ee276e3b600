"""A failure in project code as one sentence."""

import polars as pl
import pytest

from fairway.errors import ModelCodeError
from fairway.training.trouble import describe, sentence


@pytest.fixture
def run(tmp_path):
    """Runs a function body as code/model.py and gives the sentence of what it raised."""
    folder = tmp_path / "code"
    folder.mkdir()

    def start(body: str, **values) -> str:
        path = folder / "model.py"
        path.write_text("def features(data=None):\n" + "".join(f"    {line}\n" for line in body.splitlines()))
        scope: dict = {}
        exec(compile(path.read_text(), str(path), "exec"), scope)
        with pytest.raises(BaseException) as caught:
            scope["features"](**values)
        return sentence(caught.value)

    return start


def test_the_place_and_the_reason(run):
    assert run("x = 1\nraise ValueError('bad thing')") == "model.py line 3, in features(): ValueError: bad thing"
    assert run("1 / 0").startswith("model.py line 2, in features(): ZeroDivisionError")
    assert "called sys.exit(0)" in run("raise SystemExit(0)")
    assert "out of memory" in run("raise MemoryError")


def test_a_column_that_is_not_there_names_its_neighbour(run):
    data = pl.DataFrame({"TotalCharges": [1.0], "tenure": [2]})
    said = run('return data.select("TotalCharge")', data=data)
    assert said == 'model.py line 2, in features(): column "TotalCharge" not found; the table has "TotalCharges".'
    said = run('return data.select("zzz")', data=data)
    assert said.endswith('column "zzz" not found; the table has TotalCharges, tenure.')


def test_our_own_refusals_are_said_as_they_are_and_the_trace_is_kept():
    try:
        raise ModelCodeError("train() returned nothing")
    except ModelCodeError as exc:
        found = describe(exc)
    assert found["message"] == "train() returned nothing"
    assert "Traceback" in found["trace"]
