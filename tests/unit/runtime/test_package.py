"""A package names every byte of itself, and is refused when one differs."""

import shutil

import pytest
from tiny_package import TREES, make_package, rows

from fairway import fingerprint
from fairway.errors import ModelCodeError, StoreError, TamperFound
from fairway.runtime import loader, package
from fairway.store.workspace import Workspace


def test_the_same_inputs_make_the_same_artifact(tmp_path):
    hashes = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        folder = make_package(tmp_path / name)
        hashes.append(fingerprint.of_file(folder / package.MANIFEST))
    assert hashes[0] == hashes[1]


def test_a_package_comes_back_from_the_blobs_whole(tmp_path, folder):
    workspace = Workspace.create(tmp_path / "space")
    artifact = package.store_package(workspace, folder)
    assert artifact == fingerprint.of_file(folder / package.MANIFEST)
    shutil.rmtree(folder)
    again = package.materialise(workspace, artifact)
    assert package.materialise(workspace, artifact) == again
    loaded = loader.load(again, artifact=artifact)
    heldout = package.read_heldout(again)
    assert loaded.predict(rows().head(5)).outputs.tolist() == heldout["outputs"]


@pytest.mark.parametrize("name", ["manifest.json", "code/model.py", "model/trees.bin", "contract.toml"])
def test_a_changed_byte_is_found(folder, name):
    artifact = fingerprint.of_file(folder / package.MANIFEST)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-3] + b"\n" + data[-2:])
    with pytest.raises(TamperFound):
        loader.load(folder, artifact=artifact)


def test_an_extra_and_a_missing_file_are_found_and_byte_code_is_removed(folder):
    (folder / "code" / "__pycache__").mkdir()
    (folder / "code" / "__pycache__" / "helper.cpython-311.pyc").write_bytes(b"planted")
    package.verify(folder)
    assert not (folder / "code" / "__pycache__").exists()
    (folder / "code" / "json.py").write_text("evil = True\n")
    with pytest.raises(TamperFound, match="does not belong"):
        package.verify(folder)
    (folder / "code" / "json.py").unlink()
    (folder / "code" / "helper.py").unlink()
    with pytest.raises(TamperFound, match="missing"):
        package.verify(folder)


def test_a_changed_blob_is_found_before_anything_is_unpacked(tmp_path, folder):
    workspace = Workspace.create(tmp_path / "space")
    artifact = package.store_package(workspace, folder)
    digest = package.verify(folder).files["code/model.py"]
    workspace.blobs.path(digest).write_text("import os\n")
    with pytest.raises(TamperFound):
        package.materialise(workspace, artifact)
    assert not list((workspace.dir("cache") / "artifacts").glob("*"))


def test_a_newer_format_and_a_path_outside_are_refused(folder):
    data = (folder / package.MANIFEST).read_bytes()
    with pytest.raises(StoreError, match="format 2"):
        package.read_manifest(data.replace(b'"format": 1', b'"format": 2'))
    with pytest.raises(TamperFound, match="outside"):
        package.read_manifest(data.replace(b'"code/helper.py"', b'"../helper.py"'))


def test_wire_values_give_the_same_answers_as_typed_rows(folder):
    loaded = loader.load(folder)
    typed = rows(30)
    columns = {"who": typed["who"].to_list(), "size": typed["size"].to_list(), "color": [*typed["color"]]}
    assert loaded.predict_columns(columns, [0] * 30).outputs.tolist() == loaded.predict(typed).outputs.tolist()
    alone = [loaded.predict(typed[[i]]).outputs[0] for i in range(30)]
    assert alone == loaded.predict(typed).outputs.tolist()


def test_features_that_lack_a_column_are_refused_by_name(tmp_path):
    text = TREES.replace(
        "def train", "    if data.height < 10:\n        made = made.drop('twice')\n    return made\n\ndef train"
    )
    loaded = loader.load(make_package(tmp_path, text.replace("return data.drop", "made = data.drop")))
    assert len(loaded.predict(rows(10)).outputs) == 10
    with pytest.raises(ModelCodeError, match="'twice'"):
        loaded.predict(rows(9))
