"""Which of the three strategies works the batches of a definition, on which database."""

from __future__ import annotations

import pytest

from massmigration import BatchMigration, CustomMigration, MapperMigration, SimpleMigration
from massmigration.engine.kinds import get_kind
from massmigration.engine.strategies import ComparedBeforeWriting, InTransaction, SavingByItself, choose_strategy
from tests.conftest import needs_postgres
from tests.engine.support import make
from tests.testapp.models import City

pytestmark = pytest.mark.django_db(databases=["default", "postgres"])


class Rows:
    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)


class Writes(Rows, MapperMigration):
    update_fields = ["visits"]


class Saves(Rows, MapperMigration):
    pass


class Batch(Rows, BatchMigration):
    pass


def choose(definition, db_alias, **attributes):
    migration = make(type("Migration", (definition,), attributes))
    processor = get_kind(migration).make_processor(db_alias)
    return processor, choose_strategy(processor)


@pytest.mark.parametrize("definition", [Saves, Batch, CustomMigration, SimpleMigration])
def test_what_writes_by_itself_is_called_in_the_transaction_or_its_changes_stay(db_alias, definition):
    assert type(choose(definition, db_alias)[1]) is InTransaction
    assert type(choose(definition, db_alias, atomic=False)[1]) is SavingByItself


@pytest.mark.parametrize(
    ("db_alias", "attributes", "strategy"),
    [
        ("default", {}, ComparedBeforeWriting),
        ("default", {"atomic": False}, ComparedBeforeWriting),
        pytest.param("postgres", {}, InTransaction, marks=needs_postgres),
        pytest.param("postgres", {"lock_rows": False}, ComparedBeforeWriting, marks=needs_postgres),
        pytest.param("postgres", {"atomic": False}, ComparedBeforeWriting, marks=needs_postgres),
    ],
)
def test_what_the_engine_writes_is_locked_where_that_can_be_and_else_compared(db_alias, attributes, strategy):
    assert type(choose(Writes, db_alias, **attributes)[1]) is strategy


def test_a_transaction_that_calls_the_operation_is_short_where_others_wait_for_it():
    saves, _ = choose(Saves, "default")
    writes, strategy = choose(Writes, "default")
    assert saves.gap_seconds > 0 and saves.batch_seconds < writes.batch_seconds
    assert writes.gap_seconds == 0
    assert type(strategy.insist()) is InTransaction and writes.gap_seconds == 0
    assert type(strategy.within_transaction()) is InTransaction and writes.gap_seconds > 0
