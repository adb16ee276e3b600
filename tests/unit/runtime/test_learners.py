"""Every learner's model comes back from a file that can hold no code, and answers as before."""

import json

import numpy as np
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from fairway.errors import ModelCodeError, TamperFound
from fairway.runtime import boosters, modules
from fairway.runtime.code import Code, import_code
from fairway.runtime.proof import Choice, choose
from fairway.runtime.runtimes import ObjectRuntime, load_runtime

PLAIN = "def features(data):\n    return data\n\ndef train(X, y, params):\n    return None\n"
PANDAS = "import pandas as pd\n\n" + PLAIN.replace("train(X,", "train(X: pd.DataFrame,")
CLASSES = {"binary": 2, "multiclass": 3, "regression": 0}


def frame(n: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(1)
    values = [None if i % 9 == 0 else float(v) for i, v in enumerate(rng.normal(size=n))]
    return pl.DataFrame({"a": values, "b": rng.integers(0, 6, n), "flag": rng.random(n) < 0.5})


def labels(X: pl.DataFrame, task: str) -> np.ndarray:
    rng = np.random.default_rng(2)
    score = X["a"].fill_null(0.2).to_numpy() + (X["b"] == 3).to_numpy() + 0.5 * rng.normal(size=X.height)
    if task == "regression":
        return score
    return (score > 0).astype(int) if task == "binary" else np.digitize(score, [-0.5, 0.5])


def project(folder, text: str = PLAIN) -> Code:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.py").write_text(text)
    return import_code(folder)


def packed(model, task: str, X: pl.DataFrame, folder, text: str = PLAIN) -> tuple[Choice, np.ndarray]:
    code, classes = project(folder / "code", text), CLASSES[task]
    outputs = ObjectRuntime(model, code, task=task, classes=classes).predict(X)
    made = choose(
        model, code, folder / "model", task=task, classes=classes, train=X, heldout=X, outputs=outputs
    )  # fmt: skip
    # As a serving process does it: nothing but the manifest, the files and the project's code.
    again = load_runtime(json.loads(json.dumps(made.manifest)), folder / "model", code, task=task, classes=classes)
    assert np.abs(again.predict(X) - outputs).max() < 1e-9
    assert np.abs(again.predict(X[:1]) - outputs[:1]).max() < 1e-9
    return made, outputs


def lightgbm_model(task: str):
    import lightgbm

    kind = lightgbm.LGBMRegressor if task == "regression" else lightgbm.LGBMClassifier
    return kind(n_estimators=5, num_leaves=7, n_jobs=1, verbose=-1)


def xgboost_model(task: str):
    import xgboost

    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    return kind(n_estimators=5, max_depth=3, n_jobs=1)


def catboost_model(task: str):
    import catboost

    kind = catboost.CatBoostRegressor if task == "regression" else catboost.CatBoostClassifier
    return kind(iterations=5, depth=3, verbose=0, allow_writing_files=False, thread_count=1)


LIBRARIES = {"lightgbm": lightgbm_model, "xgboost": xgboost_model, "catboost": catboost_model}


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_boosters_are_kept_in_their_own_formats(library, task, tmp_path):
    X = frame().with_columns(pl.col("flag").cast(pl.Int8))
    model = LIBRARIES[library](task)
    model.fit(X, labels(X, task))
    made, outputs = packed(model, task, X, tmp_path)
    # Trees go to treelite, whose import costs no second and which needs no OpenMP.
    assert made.manifest["kind"] == ("catboost" if library == "catboost" else "treelite"), made.manifest
    types = boosters.save(model, tmp_path / "own")
    assert types == [f"{library}.{type(model).__name__}"]
    read = boosters.load(tmp_path / "own", library, types, classes=CLASSES[task])
    assert type(read) is type(model)
    given = ObjectRuntime(read, project(tmp_path / "again"), task=task, classes=CLASSES[task])
    assert np.abs(given.predict(X) - outputs).max() < 1e-12


@pytest.mark.parametrize("task", ["binary", "multiclass", "regression"])
def test_xgboost_goes_to_treelite_to_the_last_bit(task, tmp_path):
    import xgboost

    X = frame().with_columns(pl.col("flag").cast(pl.Int8))
    y = labels(X, task)
    kind = xgboost.XGBRegressor if task == "regression" else xgboost.XGBClassifier
    wrapped = kind(n_estimators=60, n_jobs=1).fit(X, y)
    bare = {"bare": wrapped.get_booster()} if task != "multiclass" else {}
    for name, model in {"wrapped": wrapped, **bare}.items():
        made, outputs = packed(model, task, X, tmp_path / name)
        assert made.manifest["kind"] == "treelite", made.manifest
        assert made.runtime.predict(X).tolist() == outputs.tolist()
        # Beyond single precision a number is infinite, to XGBoost and here.
        far, end = (X[:2].with_columns(a=pl.Series([high, -high])) for high in (1e308, 3e38))
        assert made.runtime.predict(far).tolist() == made.runtime.predict(end).tolist()


def test_xgboost_answers_from_its_own_file_where_treelite_differs(tmp_path):
    import xgboost

    X = frame().with_columns(pl.col("flag").cast(pl.Int8))
    model = xgboost.XGBClassifier(n_estimators=30, booster="dart", rate_drop=0.2, n_jobs=1)
    made, _ = packed(model.fit(X, labels(X, "binary")), "binary", X, tmp_path)
    assert made.manifest["kind"] == "xgboost" and "treelite" in json.dumps(made.manifest["candidates"])


@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_equal_trainings_give_equal_bytes(library, tmp_path):
    X = frame().with_columns(pl.col("flag").cast(pl.Int8))
    found = []
    for name in ("one", "two"):
        model = LIBRARIES[library]("binary").fit(X, labels(X, "binary"))
        boosters.save(model, tmp_path / name)
        found.append((tmp_path / name / boosters.FILES[library]).read_bytes())
    assert found[0] == found[1]


def test_bare_boosters_answer_with_probabilities(tmp_path):
    import catboost
    import lightgbm
    import xgboost

    X = frame().with_columns(pl.col("flag").cast(pl.Float64))
    y = labels(X, "binary")
    matrix = X.to_numpy()
    made = {
        "lightgbm": lightgbm.train(
            {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(matrix, y), 5
        ),
        "xgboost": xgboost.train({"objective": "binary:logistic", "nthread": 1}, xgboost.DMatrix(matrix, y), 5),
        "catboost": catboost.CatBoost(
            {"loss_function": "Logloss", "iterations": 5, "verbose": 0, "allow_writing_files": False}
        ).fit(matrix, y),
    }
    for library, model in made.items():
        choice, outputs = packed(model, "binary", X, tmp_path / library)
        assert 0 < outputs.min() < outputs.max() < 1, library
        assert choice.manifest["kind"] in (library, "treelite")


def test_categories_of_pandas_reach_each_library_as_in_training(tmp_path):
    kinds = pl.Enum(["x", "y", "z"])
    X = frame().with_columns(
        pl.col("flag").cast(pl.Int8),
        kind=pl.Series(np.random.default_rng(3).choice(["x", "y", "z"], 400)).cast(kinds),
    )
    given = X.to_pandas()
    for library, fit in {
        "lightgbm": lambda m: m.fit(given, labels(X, "binary")),
        "xgboost": lambda m: m.set_params(enable_categorical=True).fit(given, labels(X, "binary")),
        "catboost": lambda m: m.fit(given, labels(X, "binary"), cat_features=["kind"]),
    }.items():
        choice, _ = packed(fit(LIBRARIES[library]("binary")), "binary", X, tmp_path / library, PANDAS)
        assert (choice.manifest["kind"], choice.manifest["feed"]) == (library, "frame"), choice.manifest


def test_what_would_abort_lightgbm_is_refused_by_name(tmp_path):
    model = lightgbm_model("binary").fit(frame().to_numpy(), labels(frame(), "binary"))
    types = boosters.save(model, tmp_path)
    manifest = {"kind": "lightgbm", "types": types, "feed": "frame"}
    runtime = load_runtime(manifest, tmp_path, project(tmp_path / "code"), task="binary", classes=2)
    odd = frame(3).with_columns(pl.col("b").cast(pl.String))
    with pytest.raises(ModelCodeError, match="feature b is String: LightGBM aborts"):
        runtime.predict(odd)


def test_a_class_that_its_library_cannot_store_is_refused(tmp_path):
    boosters.save(lightgbm_model("binary").fit(frame().to_numpy(), labels(frame(), "binary")), tmp_path)
    for types in (["lightgbm.Dataset"], ["lightgbm.LGBMClassifier", "os.system"], [], ["os.system"]):
        with pytest.raises(TamperFound, match="none of lightgbm's"):
            boosters.load(tmp_path, "lightgbm", types, classes=2)


def test_words_of_a_text_column_with_numbers_beside_it(tmp_path):
    rng = np.random.default_rng(0)
    spam = rng.random(300) < 0.4
    X = pl.DataFrame({"text": ["win cash now" if s else "see you soon" for s in spam], "n": rng.normal(size=300)})
    words = make_column_transformer((TfidfVectorizer(), "text"), remainder="passthrough")
    model = make_pipeline(words, LogisticRegression()).fit(X, spam.astype(int))
    choice, _ = packed(model, "binary", X, tmp_path)
    assert choice.manifest["kind"] == "python"


TWO_TOWERS = '''
import json
import numpy as np

def features(data):
    return data

def train(X, y, params):
    return None

class Towers:
    """One part for the text, one for the vector, one for the picture: several inputs, one answer."""
    def __init__(self, weights):
        self.weights = weights

    def score(self, X):
        text = X["text"].str.len_chars().to_numpy()
        vector = np.stack([np.asarray(v) for v in X["vector"].to_list()]) @ np.asarray(self.weights)
        light = np.array([np.frombuffer(b, np.uint8).mean() for b in X["image"].to_list()])
        return 1 / (1 + np.exp(-(vector + text / 100 + light / 255)))

def predict(model, X):
    return model.score(X)

def save(model, folder):
    (folder / "weights.json").write_text(json.dumps(model.weights))

def load(folder):
    return Towers(json.loads((folder / "weights.json").read_text()))
'''


def test_one_frame_carries_several_inputs(tmp_path):
    rng = np.random.default_rng(0)
    X = pl.DataFrame(
        {
            "text": ["ab" * (i % 5) for i in range(40)],
            "vector": rng.normal(size=(40, 3)).tolist(),
            "image": [bytes([i, 2 * i, 3]) for i in range(40)],
        }
    )
    model = project(tmp_path / "towers", TWO_TOWERS).module.Towers([0.1, -0.2, 0.3])
    choice, outputs = packed(model, "binary", X, tmp_path, TWO_TOWERS)
    assert choice.manifest["kind"] == "project" and outputs.std() > 0


@pytest.mark.parametrize(
    ("save", "said"),
    [
        ("import pickle; (folder / 'm.json').write_bytes(pickle.dumps(model))", "m.json is a pickle"),
        ("(folder / 'm.pkl').write_text('x')", "has the name of a pickle"),
        ("pass", "wrote nothing"),
    ],
)
def test_a_project_that_saves_a_pickle_is_refused(save, said, tmp_path):
    text = (
        TWO_TOWERS.split("def save")[0] + f"def save(model, folder):\n    {save}\n\ndef load(folder):\n    return 1\n"
    )
    text += "\ndef predict(model, X):\n    return [0.5] * X.height\n"
    with pytest.raises(ModelCodeError, match=said):
        packed([1.0], "binary", frame(20), tmp_path, text)


NET = """
import numpy as np
import torch
from safetensors.torch import load_file

def features(data):
    return data

def train(X, y, params):
    return None

def numbers(X):
    return torch.tensor(X.fill_null(0).to_numpy().astype(np.float32))

def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 1))

def predict(model, X):
    return torch.sigmoid(model(numbers(X)))[:, 0]

def load(folder):
    model = net()
    model.load_state_dict(load_file(folder / "weights.safetensors"))
    return model.eval()
"""


def test_a_module_of_pytorch_is_kept_as_tensors(tmp_path):
    pytest.importorskip("torch", reason="PyTorch's wheels are gigabytes: not in the lock. pip install 'fairway[torch]'")
    X = frame(50).with_columns(pl.col("flag").cast(pl.Int8))
    model = project(tmp_path / "net", NET).module.net()
    choice, _ = packed(model, "binary", X, tmp_path, NET)
    assert [p.name for p in (tmp_path / "model").iterdir()] == [modules.WEIGHTS]
    assert choice.manifest["kind"] == "project"


def test_a_module_of_pytorch_without_load_says_what_to_add():
    kinds = {"__module__": "torch.nn.modules.module"}
    module = type("Module", (), kinds)
    net = type("Net", (module,), {})()
    assert modules.is_module(net) and not modules.is_module(object())
    assert "load_state_dict" in modules.advice(net) and "Net" in modules.advice(net)
