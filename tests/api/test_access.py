"""What a key may do: one table over all routes, and a key of each scope at each of them."""

import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from starlette.routing import BaseRoute

from api.access import NEEDS, check_scope
from nelbo.errors import Forbidden
from nelbo.store.keys import SCOPES, Scope
from tests.api.stage import Stage, bearer, description, make_key, open_stage, settings_for
from tests.api.test_answers import REQUESTS

WITHOUT_OPERATION = {"/", "/docs", "/docs/start.js", "/docs/{file}", "/openapi.json"}
"""They describe the service and hold nothing of an owner's."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, sqlite_template: Path) -> Iterator[Stage]:
    home = tmp_path_factory.mktemp("access")
    shutil.copy(sqlite_template, home / "nelbo.db")
    with open_stage(settings_for(home, require_keys=True)) as opened:
        yield opened


@pytest.fixture(scope="module")
def keys(stage: Stage) -> dict[Scope, str]:
    """A key of each scope."""
    return {scope: make_key(stage.settings.database, "ada", scope) for scope in SCOPES}


def operations() -> set[str]:
    return {
        operation["operationId"]
        for operations in description()["paths"].values()
        for operation in operations.values()
    }


def test_the_table_lists_every_operation_and_no_other() -> None:
    assert set(NEEDS) == operations()
    assert {name for name, needed in NEEDS.items() if needed} == set(REQUESTS)


def leaves(routes: Iterable[BaseRoute]) -> Iterator[BaseRoute]:
    """The routes of an application, and those of the routers that it includes."""
    for route in routes:
        included = getattr(route, "original_router", None)
        if included is None:
            yield route
        else:
            yield from leaves(included.routes)


def test_every_route_of_the_application_is_an_operation_or_a_description(stage: Stage) -> None:
    routes = list(leaves(stage.client.app.routes))  # type: ignore[attr-defined]
    listed = [route for route in routes if isinstance(route, APIRoute) and route.include_in_schema]
    assert {route.operation_id for route in listed} == set(NEEDS)
    assert {
        getattr(route, "path", route) for route in routes if route not in listed
    } == WITHOUT_OPERATION


@pytest.mark.parametrize("scope", SCOPES)
def test_a_key_may_do_what_its_scope_and_the_lower_ones_may(
    stage: Stage, keys: dict[Scope, str], scope: Scope
) -> None:
    refused = set()
    for operation, (method, path, given) in REQUESTS.items():
        if stage.ask(method, path, **given, headers=bearer(keys[scope])).status_code == 403:
            refused.add(operation)
    allowed = SCOPES[: SCOPES.index(scope) + 1]
    assert refused == {operation for operation in REQUESTS if NEEDS[operation] not in allowed}


def test_an_operation_that_the_table_does_not_list_is_refused_to_everyone() -> None:
    with pytest.raises(Forbidden, match="missing in the service's table"):
        check_scope("admin", "new_operation")
