"""The whole suite of stores on a real Postgres."""

from collections.abc import Iterator

import pytest

from fairway.store.base import Store
from fairway.testing import StoreSuite


class TestPostgres(StoreSuite):
    @pytest.fixture
    def store(self, postgres_url: str) -> Iterator[Store]:
        with Store(postgres_url) as store:
            yield store
