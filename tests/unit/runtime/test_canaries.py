"""A pickle in any place that takes a file is never run: not by name, not by content, not packed into something else."""

import ast
import gzip
import io
import json
import os
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import joblib
import numpy as np
import polars as pl
import pytest
from tiny_package import make_package

import fairway
from fairway import fingerprint
from fairway.contract.request import compile_request
from fairway.contract.text import parse_contract, parse_settings
from fairway.errors import FairwayError, TamperFound
from fairway.path.new import new
from fairway.runtime import loader, package
from fairway.runtime.formats import pickled

SOURCE = Path(fairway.__file__).parent


class Canary:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = str(mark)

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.fixture
def mark(tmp_path):
    path = tmp_path / "the-canary-ran"
    yield path
    assert not path.exists(), "a pickle was run"


def forms(mark: Path) -> dict[str, bytes]:
    bird = Canary(mark)
    found = {f"pickle {n}": pickle.dumps(bird, protocol=n) for n in (0, 1, 2, 4, 5)}
    for how in (0, ("zlib", 3), ("xz", 3), ("bz2", 3)):
        buffer = io.BytesIO()
        joblib.dump(bird, buffer, compress=how)
        found[f"joblib {how}"] = buffer.getvalue()
    found["gzip"] = gzip.compress(pickle.dumps(bird))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:  # as torch.save writes it
        archive.writestr("archive/data.pkl", pickle.dumps(bird, protocol=2))
        archive.writestr("archive/version", "3\n")
    found["torch"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.save(buffer, np.array([bird], dtype=object), allow_pickle=True)
    found["array"] = buffer.getvalue()
    return found


def test_the_canary_would_run(tmp_path):
    path = tmp_path / "ran"
    pickle.loads(pickle.dumps(Canary(path)))
    assert path.exists()


def test_every_form_is_told_by_its_bytes(mark, tmp_path):
    for name, data in forms(mark).items():
        path = tmp_path / "model.json"
        path.write_bytes(data)
        assert pickled(path) is not None, name
    for name, data in {
        "json": b'{"a": [1, 2], "c": "x."}', "lightgbm": b"tree\nversion=v4\nnum_class=1\n", "empty": b"",
        "text": b"l.", "csv": b"id,label\n1,a.\n", "numbers": b"(1, 2)",
        "safetensors": (2).to_bytes(8, "little") + b"{}",
    }.items():  # fmt: skip
        path.write_bytes(data)
        assert pickled(path) is None, name
    path = tmp_path / "array.npy"
    np.save(path, np.arange(3))
    assert pickled(path) is None


def packaged_with(folder: Path, name: str, data: bytes) -> str:
    """Put the bytes into the package and let its manifest agree, as somebody with access to the files could."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / package.MANIFEST).read_text())
    manifest["files"][name] = fingerprint.of_bytes(data)
    if name.endswith("object.skops"):
        manifest["runtime"] = {"kind": "python", "types": [], "reason": "", "candidates": []}
    kinds = {"model.txt": "lightgbm", "model.json": "xgboost", "model.cbm": "catboost"}
    if (kind := kinds.get(Path(name).name)) is not None:
        types = {"lightgbm": "Booster", "xgboost": "XGBClassifier", "catboost": "CatBoostClassifier"}[kind]
        manifest["runtime"] = {"kind": kind, "types": [f"{kind}.{types}"], "feed": "matrix", "reason": ""}
    if name.endswith("weights.safetensors"):
        manifest["runtime"] = {"kind": "project", "types": [], "reason": ""}
    (folder / package.MANIFEST).write_text(json.dumps(manifest))
    return fingerprint.of_bytes((folder / package.MANIFEST).read_bytes())


PLACES = (
    "model/object.skops", "model/trees.bin", "model/trees.json", "model/model.txt", "model/model.json",
    "model/model.cbm", "model/weights.safetensors", "model/extra.pkl", "model/readme.txt",
)  # fmt: skip


def test_no_file_of_a_model_is_unpickled_even_when_the_manifest_was_made_to_agree(mark, tmp_path):
    whole = make_package(tmp_path)
    for place in PLACES:
        for form, data in forms(mark).items():
            copied = tmp_path / "copies" / f"{place.replace('/', '-')} {form}"
            shutil.copytree(whole, copied)
            artifact = packaged_with(copied, place, data)
            with pytest.raises(TamperFound, match="reading one runs"):
                loader.load(copied, artifact=artifact)


@pytest.mark.parametrize(
    "name", ["heldout.msgpack", "reference.json", "contract.toml", "fairway.toml", "manifest.json"]
)
def test_no_other_file_of_a_package_is_unpickled(name, mark, tmp_path):
    folder = make_package(tmp_path)
    for data in forms(mark).values():
        (folder / name).write_bytes(data)
        with pytest.raises(FairwayError):
            loader.load(folder)
        if name == "heldout.msgpack":
            with pytest.raises(Exception, match=r"."):
                package.read_heldout(folder)


def test_no_file_of_a_project_and_no_table_is_unpickled(mark, tmp_path):
    for number, (form, data) in enumerate(forms(mark).items()):
        for suffix in (".csv", ".parquet", ".pkl", ".jsonl", ".json", ".csv.gz", ""):
            table = tmp_path / f"table{number}{suffix}"
            table.write_bytes(data)
            with pytest.raises(FairwayError):
                new(f"m{number}", table, "label", yes=True, folder=tmp_path)
        folder = tmp_path / f"folder{number}"
        folder.mkdir()
        (folder / "part.parquet").write_bytes(data)
        with pytest.raises(FairwayError):
            new(f"f{number}", folder, "label", yes=True, folder=tmp_path)
        text = data.decode("latin-1")
        for parse in (parse_settings, parse_contract):
            with pytest.raises(FairwayError):
                parse(text, file=form)


def test_no_request_is_unpickled(mark, tmp_path):
    made = new(
        "m",
        pl.DataFrame({"x": [i * 7 % 13 for i in range(100)], "label": ["a", "b"] * 50}),
        "label",
        yes=True,
        folder=tmp_path,
    )
    decode = compile_request(made.project.contract, made.project.settings).decode
    for data in forms(mark).values():
        with pytest.raises(FairwayError):
            decode(data)


def test_arrays_between_the_steps_are_read_without_pickles(mark, tmp_path):
    path = tmp_path / "outputs.npy"
    path.write_bytes(forms(mark)["array"])
    with pytest.raises(ValueError, match="allow_pickle"):
        np.load(path, allow_pickle=False)


# -- the source itself -----------------------------------------------------------------------------------------------

_UNPICKLES = re.compile(
    r"\b(pickle|cPickle|_pickle|cloudpickle|dill|joblib|shelve|marshal|jsonpickle)\s*\.|torch\.load\(|read_pickle|"
    r"allow_pickle\s*=\s*True|yaml\.(unsafe_)?load\(|(?<![.\w])(eval|exec)\("
)
_IMPORTS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal", "jsonpickle"}
_READERS = re.compile(
    r"skops\.io\.loads?\(|\.load_model\(|\bBooster\(model_|deserialize(_bytes)?\(|function\(\"load\"\)"
)


def sources():
    return [(path.relative_to(SOURCE).as_posix(), path.read_text()) for path in sorted(SOURCE.rglob("*.py"))]


def without_texts(text: str) -> str:
    """The code alone, without comments and texts: advice may name what it advises against."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = node.value if node.value == "load" else ""
    return ast.unparse(tree)


def test_nothing_in_the_source_unpickles():
    for name, text in sources():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                assert not _IMPORTS & {alias.name.split(".")[0] for alias in node.names}, name
            elif isinstance(node, ast.ImportFrom):
                assert (node.module or "").split(".")[0] not in _IMPORTS, name
        code = without_texts(text)
        found = _UNPICKLES.search(code)
        assert found is None, f"{name}: {found[0]}"
        for loaded in re.findall(r"np\.load\([^)]*\)", code):
            assert "allow_pickle=False" in loaded, f"{name}: {loaded}"


def test_there_is_one_site_that_makes_a_model_of_a_file():
    readers = {name for name, text in sources() if _READERS.search(without_texts(text).replace("'", '"'))}
    assert readers == {"runtime/boosters.py", "runtime/objects.py", "runtime/proof.py", "runtime/runtimes.py"}
    calls = {name: len(re.findall(r"(?<!def )\bload_runtime\(", text)) for name, text in sources()}
    assert {name for name, n in calls.items() if n} == {"runtime/loader.py", "runtime/proof.py"}
    loads = re.compile(r"\b(boosters|objects|TreeliteRuntime)\.load\(")
    assert {name for name, text in sources() if loads.search(text)} == {"runtime/runtimes.py"}
