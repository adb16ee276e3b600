"""Python objects in skops files: no pickle, the same bytes for the same object, an explicit list of types."""

import importlib
import io
import json
import zipfile
from pathlib import Path
from typing import Any

from fairway.errors import ModelCodeError, TamperFound

_PACKAGES = ("sklearn", "numpy", "scipy")


def dump(model: Any, path: Path) -> list[str]:
    """Write the object and return the types, all of scikit-learn, NumPy or SciPy, that loading it must trust.

    Raises: ModelCodeError when it holds anything else.
    """
    import skops.io

    name = type(model).__name__
    try:
        data = skops.io.dumps(model)
        types = sorted(skops.io.get_untrusted_types(data=data))
    except Exception as exc:  # skops raises whatever the object's own state raises
        raise ModelCodeError(_advice(name, str(exc))) from exc
    foreign = [found for found in types if not _is_ours(found)]
    if foreign:
        raise ModelCodeError(_advice(name, f"it holds {', '.join(foreign[:3])}"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_canonical(data))
    return types


def load(path: Path, types: list[str]) -> Any:
    """Raises: TamperFound when the file needs a type that is not in `types` or not of the three packages."""
    import skops.io

    data = path.read_bytes()
    wanted = skops.io.get_untrusted_types(data=data)
    strange = [found for found in wanted if found not in types or not _is_ours(found)]
    if strange:
        raise TamperFound(f"{path.name} needs {strange[0]}, which its manifest does not allow")
    return skops.io.loads(data, trusted=types)


def _advice(name: str, why: str) -> str:
    return (
        f"train() returned {name}, which can't be stored without pickle ({why}): "
        "such a model needs save(model, folder) and load(folder) in model.py, or ONNX"
    )


def _is_ours(name: str) -> bool:
    """A class of one of the three packages; a function could do anything when it is called with stored arguments."""
    module, _, attribute = name.rpartition(".")
    if module.split(".")[0] not in _PACKAGES:
        return False
    try:
        return isinstance(getattr(importlib.import_module(module), attribute), type)
    except (ImportError, AttributeError):
        return False


def _canonical(data: bytes) -> bytes:
    """The same file without what differs from dump to dump: memory addresses used as names, and times."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        contents = {info.filename: archive.read(info) for info in archive.infolist()}
    schema = json.loads(contents.pop("schema.json"))
    ids: dict[Any, int] = {}
    names: dict[str, str] = {}

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(item) for item in node]
        if not isinstance(node, dict):
            return node
        out: dict[str, Any] = {}
        for key, value in node.items():
            if key == "__id__":
                out[key] = ids.setdefault(value, len(ids) + 1)
            elif key == "file" and isinstance(value, str) and value in contents:
                suffix = value.rpartition(".")[2]
                out[key] = names.setdefault(value, f"{len(names)}.{suffix}")
            else:
                out[key] = walk(value)
        return out

    text = json.dumps(walk(schema), sort_keys=False).encode()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, piece in [("schema.json", text), *((names.get(n, n), b) for n, b in contents.items())]:
            archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), piece)
    return target.getvalue()
