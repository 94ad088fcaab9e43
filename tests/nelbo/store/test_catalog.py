"""The catalog: versions get numbers, aliases move, models go, and owners do not meet."""

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import update

from nelbo.errors import Conflict, Gone, InvalidInput, NotFound, NotReady
from nelbo.jobs import ScoreRequest
from nelbo.store import catalog, expiry, ledger, lookup, results
from nelbo.store.catalog import VersionEntry
from nelbo.store.claims import VerifyOutcome
from nelbo.store.session import Database, now
from nelbo.store.tables import JobRow
from tests.nelbo.store.kit import OWNER, add_job, add_version, work_off


def test_versions_are_numbered_from_one_for_each_model_and_owner(database: Database) -> None:
    numbers = [add_version(database).number for _ in range(3)]
    assert numbers == [1, 2, 3]
    assert add_version(database, model="other").number == 1
    assert add_version(database, owner="someone").number == 1


def test_a_version_is_found_by_name_number_and_alias(database: Database) -> None:
    first, second = add_version(database), add_version(database)
    catalog.set_alias(database, OWNER, "adult", "stable", 1)
    found = {
        reference: catalog.resolve(database, OWNER, reference).id
        for reference in ("adult", "adult@champion", "adult@2", "adult@1", "adult@stable")
    }
    assert found == {
        "adult": second.id,
        "adult@champion": second.id,
        "adult@2": second.id,
        "adult@1": first.id,
        "adult@stable": first.id,
    }
    assert catalog.resolve(database, OWNER, "adult@stable").name == "adult@1"
    assert catalog.version_of(database, first.id) == first
    assert catalog.get_version(database, OWNER, "adult", 1) == first


def test_a_deleted_version_keeps_no_manifest_but_the_columns_that_results_need(
    database: Database,
) -> None:
    manifest = {
        "order": ["length", "colour"],
        "table_schema": {"columns": []},
        "calibration": {"scores": [1.0]},
    }
    used, unused = (
        catalog.add_version(database, OWNER, "adult", manifest, "digest") for _ in range(2)
    )
    job = add_job(database, version=used, request=ScoreRequest(model="adult", explain=True))
    work_off(database)
    before = list(results.scores(database, job.id, explain=True))
    catalog.delete_model(database, OWNER, "adult")
    assert catalog.get_manifest(database, unused) == {}
    assert catalog.get_manifest(database, used) == {"order": ["length", "colour"]}
    assert list(results.scores(database, job.id, explain=True)) == before
    assert expiry.empty_manifests(database) == 0
    ledger.delete(database, OWNER, job.id)
    with database.write() as connection:
        connection.execute(update(JobRow).values(deleted_at=now() - 10))
    assert expiry.forget_jobs(database, 5) == 1
    assert expiry.empty_manifests(database) == 1
    assert catalog.get_manifest(database, used) == {}


def test_the_manifest_comes_back_as_it_was(database: Database) -> None:
    manifest = {
        "order": ["a\u00e4", "\u0000"],
        "calibration": {"scores": [0.1, 1e-300, -0.0]},
        "n": 2**53,
    }
    version = catalog.add_version(database, OWNER, "adult", manifest, "digest")
    assert catalog.get_manifest(database, version) == manifest


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("adlut", "no model 'adlut'; did you mean adult?"),
        ("zzz", "`nelbo models` lists all models"),
        ("adult@7", "model adult has no version or alias '7'; it has: champion, 1"),
        ("adult@99999999999999999999999", "no version or alias"),
        ("adult@best", "model adult has no version or alias 'best'; it has: champion, 1"),
        ("", "no model ''"),
    ],
)
def test_what_is_not_there_is_told_with_what_is(
    database: Database, reference: str, words: str
) -> None:
    add_version(database)
    with pytest.raises(NotFound) as problem:
        catalog.resolve(database, OWNER, reference)
    assert words in problem.value.message


def accept(database: Database, version: VersionEntry) -> bool:
    with database.write() as connection:
        return catalog.accept_version(
            connection, version.id, VerifyOutcome({"order": []}, "digest")
        )


def reject(database: Database, version: VersionEntry, reason: str) -> bool:
    with database.write() as connection:
        return catalog.reject_version(connection, version.id, reason)


def test_champion_follows_the_newest_ready_version(database: Database) -> None:
    add_version(database)
    pending = catalog.add_version(
        database, OWNER, "adult", {"order": []}, "digest", state="pending"
    )
    assert catalog.resolve(database, OWNER, "adult").number == 1
    assert accept(database, pending)
    assert catalog.resolve(database, OWNER, "adult").number == 2
    assert not reject(database, pending, "too late"), "ready is final"


def test_a_version_verified_late_does_not_dethrone_a_newer_one(database: Database) -> None:
    slow = catalog.add_version(database, OWNER, "adult", {"order": []}, "digest", state="pending")
    add_version(database)
    assert accept(database, slow)
    assert catalog.resolve(database, OWNER, "adult").number == 2


def test_a_champion_set_by_hand_stays_until_it_is_removed(database: Database) -> None:
    add_version(database)
    add_version(database)
    catalog.set_alias(database, OWNER, "adult", "champion", 1)
    add_version(database)
    assert catalog.resolve(database, OWNER, "adult").number == 1
    catalog.delete_alias(database, OWNER, "adult", "champion")
    assert catalog.resolve(database, OWNER, "adult").number == 3
    with pytest.raises(NotFound, match="has no alias nope"):
        catalog.delete_alias(database, OWNER, "adult", "nope")


@pytest.mark.parametrize("alias", ["", "3", "a@b"])
def test_an_alias_is_a_word(database: Database, alias: str) -> None:
    add_version(database)
    with pytest.raises(InvalidInput, match="cannot be an alias"):
        catalog.set_alias(database, OWNER, "adult", alias, 1)


def test_an_alias_stands_for_a_ready_version(database: Database) -> None:
    catalog.add_version(database, OWNER, "adult", {"order": []}, "digest", state="pending")
    with pytest.raises(Conflict, match="adult@1 is pending"):
        catalog.set_alias(database, OWNER, "adult", "stable", 1)
    with pytest.raises(NotFound):
        catalog.set_alias(database, OWNER, "adult", "stable", 2)


def test_a_model_without_a_ready_version_says_why(database: Database) -> None:
    pending = catalog.add_version(
        database, OWNER, "adult", {"order": []}, "digest", state="pending"
    )
    with pytest.raises(NotReady, match="no verified version yet"):
        catalog.resolve(database, OWNER, "adult")
    reject(database, pending, "a graph has changed")
    with pytest.raises(NotFound, match="no ready version"):
        catalog.resolve(database, OWNER, "adult")
    with pytest.raises(Conflict, match="adult@1 was rejected: a graph has changed"):
        catalog.resolve(database, OWNER, "adult@1")


def test_models_are_listed_with_versions_and_aliases(database: Database) -> None:
    for model in ("b", "a", "a", "c"):
        add_version(database, model=model)
    catalog.set_alias(database, OWNER, "a", "stable", 1)
    found = catalog.list_models(database, OWNER)
    assert [(model.name, model.versions, model.aliases) for model in found] == [
        ("a", (1, 2), {"champion": 2, "stable": 1}),
        ("b", (1,), {"champion": 1}),
        ("c", (1,), {"champion": 1}),
    ]
    assert [model.name for model in catalog.list_models(database, OWNER, limit=1, after="a")] == [
        "b"
    ]
    assert catalog.get_model(database, OWNER, "a") == found[0]
    assert [version.number for version in catalog.list_versions(database, OWNER, "a")] == [2, 1]
    assert catalog.list_versions(database, OWNER, "a")[0].view.version == 2


def test_a_deleted_version_is_gone_and_its_number_is_not_given_again(database: Database) -> None:
    add_version(database)
    second = add_version(database)
    assert catalog.delete_version(database, OWNER, "adult", 2) == second.id
    with pytest.raises(Gone, match="adult@2 was deleted"):
        catalog.resolve(database, OWNER, "adult@2")
    with pytest.raises(Gone, match="adult@2 was deleted"):
        catalog.delete_version(database, OWNER, "adult", 2)
    assert catalog.resolve(database, OWNER, "adult").number == 1
    assert add_version(database).number == 3


def test_a_version_in_use_is_not_deleted(database: Database) -> None:
    version = add_version(database)
    job = add_job(database, version=version)
    for delete in (
        lambda: catalog.delete_version(database, OWNER, "adult", 1),
        lambda: catalog.delete_model(database, OWNER, "adult"),
    ):
        with pytest.raises(Conflict, match=f"adult@1 is in use by score job {job.id}"):
            delete()
    ledger.cancel(database, OWNER, job.id)
    assert catalog.delete_version(database, OWNER, "adult", 1) == version.id
    assert lookup.get_job(database, OWNER, job.id).model == "adult@1", (
        "the job still says what it was made with"
    )


def test_a_deleted_model_is_gone_until_it_gets_a_version_again(database: Database) -> None:
    ids = [add_version(database).id for _ in range(2)]
    assert sorted(catalog.delete_model(database, OWNER, "adult")) == sorted(ids)
    for look in (
        lambda: catalog.resolve(database, OWNER, "adult"),
        lambda: catalog.get_model(database, OWNER, "adult"),
        lambda: catalog.delete_model(database, OWNER, "adult"),
    ):
        with pytest.raises(Gone, match="model adult was deleted"):
            look()
    assert catalog.list_models(database, OWNER) == []
    assert add_version(database).number == 3
    assert catalog.resolve(database, OWNER, "adult").number == 3
    assert catalog.get_model(database, OWNER, "adult").versions == (3,)


LOOKS: list[Callable[[Database, str], Any]] = [
    lambda database, owner: catalog.resolve(database, owner, "adult"),
    lambda database, owner: catalog.get_version(database, owner, "adult", 1),
    lambda database, owner: catalog.list_versions(database, owner, "adult"),
    lambda database, owner: catalog.get_model(database, owner, "adult"),
    lambda database, owner: catalog.set_alias(database, owner, "adult", "mine", 1),
    lambda database, owner: catalog.delete_alias(database, owner, "adult", "champion"),
    lambda database, owner: catalog.delete_version(database, owner, "adult", 1),
    lambda database, owner: catalog.delete_model(database, owner, "adult"),
]


def test_what_belongs_to_another_is_not_found(database: Database) -> None:
    add_version(database)
    for look in LOOKS:
        with pytest.raises(NotFound):
            look(database, "other")
    assert catalog.list_models(database, "other") == []


def test_a_model_has_a_bounded_number_of_aliases(database: Database) -> None:
    catalog.add_version(database, OWNER, "adult", {}, "d")
    for number in range(catalog.MAX_ALIASES - 1):  # champion is one
        catalog.set_alias(database, OWNER, "adult", f"alias-{number}", 1)
    with pytest.raises(Conflict, match="has 100 aliases, the maximum per model; delete"):
        catalog.set_alias(database, OWNER, "adult", "one-more", 1)
    catalog.set_alias(database, OWNER, "adult", "alias-1", 1)
    catalog.delete_alias(database, OWNER, "adult", "alias-2")
    catalog.set_alias(database, OWNER, "adult", "one-more", 1)
