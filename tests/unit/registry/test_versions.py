"""Versions in the registry."""

import pytest

from fairway.errors import ModelNotFound, UsageError, VersionNotFound
from fairway.registry import versions
from fairway.store import audit
from fairway.store.base import Store


@pytest.fixture
def store(tmp_path):
    found = Store(f"sqlite:///{tmp_path / 'store.db'}")
    yield found
    found.close()


def new(model="churn", *, artifact="a1", dataset="data-1"):
    return versions.NewVersion(
        model=model, project_path="/p", run="run-1", artifact=artifact, dataset=dataset, contract="contract-1",
        verdict="pass", metrics={}, checks=[], settings={"risk": "low"}, trained_until=None, author="ana",
    )  # fmt: skip


def add(store, model="churn", **values):
    with store.write() as tx:
        return versions.register(store, tx, new(model, **values))


def fail_after_registering(store):
    with store.write() as tx:
        versions.register(store, tx, new())
        raise RuntimeError


def test_numbers_grow_per_model_and_each_has_its_audit_entry(store):
    assert [add(store), add(store), add(store, "other"), add(store)] == [1, 2, 1, 3]
    assert versions.newest(store, "churn").version == 3
    assert versions.get(store, "churn").version == 3
    assert versions.get(store, "churn", 2).version == 2
    assert [e.subject for e in audit.entries(store)] == ["churn@1", "churn@2", "other@1", "churn@3"]
    assert versions.champion(store, "churn") is None


def test_a_failed_transaction_leaves_no_gap(store):
    add(store)
    with pytest.raises(RuntimeError):
        fail_after_registering(store)
    assert add(store) == 2
    assert len(audit.entries(store)) == 2


def test_the_same_package_of_the_same_data_is_found(store):
    add(store, artifact="a1")
    add(store, artifact="a2")
    assert versions.same(store, model="churn", artifact="a1", dataset="data-1").version == 1
    assert versions.same(store, model="churn", artifact="a1", dataset="data-2") is None


def test_what_is_not_there_is_said_with_what_is(store):
    with pytest.raises(ModelNotFound, match="none registered yet"):
        versions.get(store, "churn")
    add(store)
    with pytest.raises(VersionNotFound, match="known: 1"):
        versions.get(store, "churn", 9)
    with pytest.raises(ModelNotFound, match="known: churn"):
        versions.get(store, "chrun", 9)


def test_things_have_one_grammar():
    assert versions.parse_thing("churn@12") == versions.Thing("version", "churn", 12)
    assert versions.parse_thing("late-flights") == versions.Thing("model", "late-flights")
    assert versions.parse_thing("run-7f3a") == versions.Thing("id", "run-7f3a")
    for wrong in ("", "churn@", "churn@x", "../x", "A", "churn@3@4", "a" * 65):
        with pytest.raises(UsageError):
            versions.parse_thing(wrong)
