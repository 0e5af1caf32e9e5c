"""Methods that would be called in vain are refused, and so is what shows that nothing was done."""

from __future__ import annotations

import functools
from typing import Any

import pytest
from asgiref.sync import async_to_sync

from massmigration import BaseMigration, BatchMigration, CustomMigration, MapperMigration, SimpleMigration, executor
from massmigration.engine.kinds import KINDS, get_kind
from massmigration.engine.methods import check_result, check_shards, check_total
from massmigration.exceptions import InvalidDefinition
from tests.engine.support import AUTHOR, change, make, run, start, work
from tests.testapp.models import City

DATABASES = ["default", "postgres"]


class Visit(MapperMigration):
    update_fields = ["visits"]
    batch_size = 2
    shard_count = 1

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias)

    def operation(self, city, db_alias):
        city.visits += 1


def define(kind: type[BaseMigration], name: str, method: Any) -> BaseMigration:
    return make(type("Migration", (kind,), {name: method}))


def make_function(kind: str, *names: str) -> Any:
    """Return a function of one kind, such as ``async def``, that takes these arguments."""
    body = {"def": "pass", "async def": "pass", "yield": "yield", "async yield": "yield"}[kind]
    head = "async def" if kind.startswith("async") else "def"
    scope: dict[str, Any] = {}
    exec(f"{head} method({', '.join(('self', *names))}):\n    {body}", scope)
    return scope["method"]


def check(migration: BaseMigration) -> None:
    get_kind(migration).check_declarations()


def refuse(migration: BaseMigration) -> str:
    with pytest.raises(InvalidDefinition) as refusal:
        check(migration)
    return str(refusal.value)


def test_every_method_that_authors_write_is_in_the_table():
    helpers = {"mark_as_started", "mark_as_finished", "mark_as_errored", "check_dependencies"}
    for kind in KINDS:
        declared = {
            name
            for parent in kind.definition.__mro__
            for name, value in vars(parent).items()
            if callable(value) and not name.startswith("_") and name not in helpers
        }
        assert {method.name for method in kind.methods} == declared


METHODS = {method: kind for kind in reversed(KINDS) for method in kind.methods}


@pytest.mark.parametrize(
    ("kind", "method"),
    [(kind, method) for method, kind in METHODS.items()],
    ids=[f"{kind.definition.__name__}.{method.name}" for method, kind in METHODS.items()],
)
class TestEachMethod:
    def test_a_plain_one_is_fine(self, kind, method):
        for row in method.arguments:
            check(define(kind.definition, method.name, make_function("def", *row)))
        check(define(kind.definition, method.name, make_function("def", "*args")))
        check(define(kind.definition, method.name, make_function("def", *method.arguments[0], "more=None")))
        plain = make_function("def", *method.arguments[0])
        check(define(kind.definition, method.name, staticmethod(functools.partial(plain, None))))

    def test_an_asynchronous_one_is_refused(self, kind, method):
        for how in ("async def", "async yield"):
            sentence = refuse(define(kind.definition, method.name, make_function(how, *method.arguments[0])))
            assert sentence.startswith(f"{method.name}() of testapp:0001_test is asynchronous, but nothing awaits it")

    def test_one_that_yields_is_refused_where_nothing_asks_for_it(self, kind, method):
        migration = define(kind.definition, method.name, make_function("yield", *method.arguments[0]))
        if method.may_yield:
            check(migration)
        else:
            assert "() of testapp:0001_test contains yield, but nothing asks for" in refuse(migration)

    @pytest.mark.parametrize("count", [0, 2])
    def test_other_arguments_are_refused(self, kind, method, count):
        names = [f"a{number}" for number in range(count if count == 0 else len(method.arguments[-1]) + count)]
        sentence = refuse(define(kind.definition, method.name, make_function("def", *names)))
        assert f"{method.name}() of testapp:0001_test takes (" in sentence
        assert f"Write it as def {method.name}(self, {', '.join(method.arguments[0])})" in sentence

    def test_what_is_no_method_is_refused(self, kind, method):
        assert "is True, but it has to be a method." in refuse(define(kind.definition, method.name, True))


def test_a_keyword_that_is_not_given_is_refused():
    assert "takes (city, db_alias, *, dry_run)" in refuse(
        define(MapperMigration, "operation", lambda self, city, db_alias, *, dry_run: None)
    )


def test_an_asynchronous_function_that_is_wrapped_for_synchronous_calls_is_fine():
    check(define(SimpleMigration, "operation", async_to_sync(make_function("async def", "db_alias"))))


async def wait() -> None:
    pass


@pytest.mark.parametrize("make_result", [wait, lambda: (x for x in ()), lambda: map(str, ()), lambda: iter([])])
def test_a_result_that_shows_that_nothing_was_done(make_result):
    with pytest.raises(InvalidDefinition, match=r"^operation\(\) of testapp:0001_test returned an? \w+, so what it"):
        check_result(make_result(), "operation", make(Visit))


@pytest.mark.parametrize("result", [None, 5, True, "done", [1], {}, City()])
def test_a_result_that_says_nothing_is_fine(result):
    check_result(result, "operation", make(Visit))


@pytest.mark.parametrize("shards", ["a.csv", b"a", None, 5, {"a": 1}])
def test_shards_that_are_no_list(shards):
    with pytest.raises(
        InvalidDefinition, match=r"^get_shards\(\) of testapp:0001_test returned .* list of JSON values"
    ):
        check_shards(shards, make(Visit))


@pytest.mark.parametrize("total", ["12", 1.5, True])
def test_a_total_that_is_no_number(total):
    with pytest.raises(
        InvalidDefinition, match=r"^get_total\(\) of testapp:0001_test returned .* a whole number, or No"
    ):
        check_total(total, make(Visit))


@pytest.mark.django_db(transaction=True, databases=DATABASES)
class TestRunning:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [
            (Visit, "operation"),
            (Visit, "prepare"),
            (Visit, "verify"),
            (BatchMigration, "operation"),
            (SimpleMigration, "operation"),
            (CustomMigration, "operation"),
            (CustomMigration, "operation_many"),
            (BaseMigration, "launch"),
        ],
    )
    def test_what_was_not_done_fails_the_run(self, db_alias, kind, name):
        City.objects.using(db_alias).create(name="a")
        methods = {
            "get_queryset": Visit.get_queryset,
            "get_items": lambda self, shard, cursor, db_alias: iter([] if cursor else [(1, "a")]),
            name: lambda self, *args: wait(),
        }
        progress = run(type("Migration", (kind,), methods), db_alias)
        assert progress.status == "failed"
        assert f"{name}() of testapp:0001_test returned a coroutine" in progress.error
        assert City.objects.using(db_alias).get().visits == (name == "verify")

    def test_before_start_that_does_nothing_refuses_the_start(self, db_alias):
        migration = define(Visit, "before_start", lambda self, db_alias: wait())
        with pytest.raises(InvalidDefinition, match=r"before_start\(\) of testapp:0001_test returned a coroutine"):
            executor.start(migration, db_alias, AUTHOR, enqueue=False)

    @pytest.mark.parametrize(
        ("attributes", "sentence"),
        [
            ({"operation": make_function("async def", "db_alias")}, "is asynchronous"),
            ({"batch_size": "many"}, "batch_size of testapp:0001_test is 'many'"),
        ],
    )
    def test_a_deploy_in_the_middle_of_a_run_fails_it(self, db_alias, attributes, sentence):
        City.objects.using(db_alias).bulk_create(City(name=str(number)) for number in range(6))
        migration = make(Visit)
        start(migration, db_alias)
        batches = []
        work(migration, db_alias, should_stop=lambda: len(batches) > 2, on_progress=lambda: batches.append(1))
        change(migration, **attributes)
        progress = work(migration, db_alias)
        assert (progress.status, sentence in progress.error) == ("failed", True)
        assert progress.processed == City.objects.using(db_alias).filter(visits=1).count() < 6
        change(migration, operation=lambda city, db_alias: setattr(city, "visits", city.visits + 1), batch_size=2)
        executor.retry(migration, db_alias, AUTHOR, enqueue=False)
        assert work(migration, db_alias).status == "applied"
        assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
