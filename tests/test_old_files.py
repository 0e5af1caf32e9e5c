"""Files that were written for django-mass-migration 0.3 load, and run, without a change."""

from __future__ import annotations

import importlib
import pickle
import subprocess
import sys
from io import StringIO

import pytest
from django.core.management import call_command

import massmigration
from massmigration import api, migrations
from massmigration.checks import check_migrations
from massmigration.discovery.loader import get_loader
from tests.testapp.models import City
from tests.throwaway import Throwaway, throwaway_apps

OLD_MAPPER = '''\
from massmigration.migrations import MapperMigration
from tests.testapp.models import City


class Migration(MapperMigration):
    """ Sets the flag of each city. """

    # What its generator put into each file:
    backend: str = None
    backend_params: dict = {}
    allowed_db_aliases: list = None
    app_label: str = None

    dependencies = [
    ]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(flag=False)

    def operation(self, obj, db_alias):
        obj.flag = True
        obj.visits += 1
        obj.save(using=db_alias)
'''

OLD_SIMPLE = '''\
from massmigration.migrations import SimpleMigration
from tests.testapp.models import City


class Migration(SimpleMigration):
    """ Adds a city. """

    backend: str = None
    backend_params: dict = {}
    allowed_db_aliases: list = ["default"]

    dependencies = [
        ("places", "0001_set_flags"),
    ]

    def operation(self, db_alias):
        City.objects.using(db_alias).create(name="Ulm", visits=100)
'''

OLD_CUSTOM = '''\
from massmigration.migrations import BaseMigration
from tests.testapp.models import City


class Migration(BaseMigration):
    """ Does everything by hand. """

    backend: str = None
    backend_method: str = NotImplemented
    backend_params: dict = {}
    allowed_db_aliases: list = None

    dependencies = [
        ("places", "0002_add_city"),
    ]

    def launch(self, db_alias):
        self.check_dependencies(db_alias)
        self.mark_as_started(db_alias)
        City.objects.using(db_alias).filter(name="Ulm").update(note="by hand")
        self.mark_as_finished(db_alias)
'''

FILES = {"0001_set_flags.py": OLD_MAPPER, "0002_add_city.py": OLD_SIMPLE, "0003_by_hand.py": OLD_CUSTOM}


@pytest.fixture
def throwaway(tmp_path, settings):
    with throwaway_apps(tmp_path, settings) as maker:
        yield maker


def test_old_files_load(throwaway: Throwaway):
    throwaway.make_app("places", FILES)
    loader = get_loader()
    assert loader.app_keys("places") == ["places:0001_set_flags", "places:0002_add_city", "places:0003_by_hand"]
    mapper = loader.get("places:0001_set_flags")
    assert isinstance(mapper, massmigration.MapperMigration)
    assert (mapper.app_label, mapper.name) == ("places", "0001_set_flags")
    assert mapper.description.strip() == "Sets the flag of each city."
    assert isinstance(loader.get("places:0002_add_city"), massmigration.SimpleMigration)
    assert isinstance(loader.get("places:0003_by_hand"), massmigration.BaseMigration)
    assert [message for message in check_migrations(None) if "places" in message.msg] == []


def test_numbers_of_one_to_five_digits_are_kept(throwaway: Throwaway):
    files = {"1_a.py": OLD_MAPPER, "002_b.py": OLD_MAPPER, "00010_copy.py": OLD_MAPPER}
    throwaway.make_app("places", files)
    assert get_loader().app_keys("places") == ["places:1_a", "places:002_b", "places:00010_copy"]


def test_old_migrations_can_be_pickled_with_their_methods(throwaway: Throwaway):
    throwaway.make_app("places", FILES)
    migration = get_loader().get("places:0003_by_hand")
    copy = pickle.loads(pickle.dumps(migration.launch)).__self__
    assert copy.key == "places:0003_by_hand"
    assert type(copy) is type(migration)


@pytest.mark.django_db(transaction=True)
def test_old_files_run(throwaway: Throwaway):
    City.objects.bulk_create(City(name=f"city {number}") for number in range(500))
    throwaway.make_app("places", FILES)
    call_command("massmigrate", "places", "0003", interactive=False, stdout=StringIO())
    assert City.objects.filter(flag=True, visits=1).count() == 500
    ulm = City.objects.get(flag=False)
    assert (ulm.name, ulm.visits, ulm.note) == ("Ulm", 100, "by hand")
    for key in get_loader().app_keys("places"):
        assert api.migration_is_applied(key)


NAMES = ("BaseMigration", "SimpleMigration", "MapperMigration", "BatchMigration", "CustomMigration")


@pytest.mark.parametrize("name", NAMES)
def test_the_old_place_of_a_class_gives_the_same_class(name):
    assert getattr(migrations, name) is getattr(massmigration, name)
    assert name in dir(migrations)
    assert name in migrations.__all__


def test_a_star_import_gives_the_classes():
    names: dict[str, object] = {}
    exec("from massmigration.migrations import *", names)
    assert set(NAMES) <= set(names)


def test_other_names_are_not_there():
    with pytest.raises(AttributeError, match=r"module 'massmigration\.migrations' has no attribute 'Nothing'"):
        migrations.Nothing  # noqa: B018
    with pytest.raises(ImportError):
        importlib.import_module("massmigration.migrations.nothing")


def test_importing_the_old_place_needs_no_settings_and_loads_no_model():
    code = (
        "import sys; from massmigration.migrations import MapperMigration; "
        "assert 'massmigration.models' not in sys.modules; print(MapperMigration.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "MapperMigration\n", done.stderr
