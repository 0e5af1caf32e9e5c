"""The admin pages: who may see what, every action, what the pages say, and a run that a click starts."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from django.contrib.auth.models import Permission, User
from django.contrib.messages import get_messages
from django.db import connections
from django.test import Client
from django.urls import resolve, reverse

from massmigration import api, states, wording
from massmigration.admin.actions import BUTTONS
from massmigration.models import MigrationAttempt, MigrationFailure, MigrationRecord, MigrationShard
from tests.testapp.models import City

KEY = "adminapp:0001_count_visits"
DESTRUCTIVE = "adminapp:0002_forget_names"
MANAGE = "/admin/massmigration/migrationrecord/manage/"
PAGE = f"{MANAGE}default/adminapp/0001_count_visits/"
DATABASES = ["default", "postgres"]

pytestmark = pytest.mark.django_db(databases=DATABASES)

ALL_PAGES = [
    "/admin/massmigration/migrationrecord/",
    MANAGE,
    f"{MANAGE}rows/",
    PAGE,
    f"{PAGE}rows/",
    f"{PAGE}failures/",
    f"{PAGE}run/",
]


def make_user(name: str, *permissions: str, is_staff: bool = True) -> User:
    user = User.objects.create_user(name, password="secret", is_staff=is_staff)
    for codename in permissions:
        user.user_permissions.add(Permission.objects.get(codename=codename, content_type__app_label="massmigration"))
    return user


def log_in(name: str, *permissions: str, **options: bool) -> Client:
    client = Client()
    client.force_login(make_user(name, *permissions, **options))
    return client


@pytest.fixture
def operator() -> Client:
    return log_in("operator", "view_migrationrecord", "run_migration")


@pytest.fixture
def viewer() -> Client:
    return log_in("viewer", "view_migrationrecord")


def put_into(status: str, key: str = KEY, db_alias: str = "default") -> None:
    """Bring a migration into a status without working on it."""
    if status == states.NOT_RUN:
        return
    api.start_migration(key, db_alias, actor="test", enqueue=False)
    MigrationRecord.objects.using(db_alias).filter(pk=key).update(status=status)


def read(client: Client, url: str, status_code: int = 200) -> str:
    response = client.get(url)
    assert response.status_code == status_code
    return response.content.decode()


def get_sentence(response) -> tuple[str, str]:
    [message] = get_messages(response.wsgi_request)
    return message.level_tag, str(message)


class TestPermission:
    @pytest.mark.parametrize("url", ALL_PAGES)
    def test_anonymous_is_sent_to_the_login(self, url: str) -> None:
        response = Client().get(url)
        assert response.status_code == 302
        assert response["Location"].startswith("/admin/login/?next=")

    @pytest.mark.parametrize("url", ALL_PAGES)
    def test_user_without_staff_is_sent_to_the_login(self, url: str) -> None:
        client = log_in("guest", "view_migrationrecord", "run_migration", is_staff=False)
        assert client.get(url)["Location"].startswith("/admin/login/?next=")

    @pytest.mark.parametrize("url", ALL_PAGES)
    def test_staff_without_permission_gets_nothing(self, url: str) -> None:
        assert log_in("clerk").get(url).status_code == 403

    @pytest.mark.parametrize("url", ALL_PAGES[:-1])
    def test_view_permission_shows_pages_without_buttons(self, viewer: Client, url: str) -> None:
        page = read(viewer, url)
        for path in BUTTONS:
            assert f"{PAGE}{path}/" not in page
        assert "mm-button" not in page
        assert "massmigration-form" not in page

    @pytest.mark.parametrize("url", ALL_PAGES)
    def test_run_permission_includes_viewing(self, url: str) -> None:
        assert log_in("runner", "run_migration").get(url).status_code == 200

    @pytest.mark.parametrize("path", BUTTONS)
    def test_post_needs_permission_to_run(self, viewer: Client, path: str) -> None:
        url = f"{PAGE}{path}/"
        assert Client().post(url)["Location"].startswith("/admin/login/")
        assert log_in("clerk").post(url).status_code == 403
        assert viewer.post(url).status_code == 403
        assert viewer.get(url).status_code == 403
        assert api.get_record(KEY) is None

    def test_migration_can_refuse_a_person(self) -> None:
        trainee = log_in("trainee", "view_migrationrecord", "run_migration")
        url = f"{MANAGE}default/adminapp/0002_forget_names/fake/"
        assert trainee.post(url).status_code == 403
        assert api.get_record(DESTRUCTIVE) is None
        page = read(trainee, MANAGE)
        assert "0001_count_visits/run/" in page
        assert "0002_forget_names/run/" not in page

    def test_csrf_token_is_required(self) -> None:
        client = Client(enforce_csrf_checks=True)
        client.force_login(make_user("operator", "run_migration"))
        assert client.post(f"{PAGE}fake/").status_code == 403
        assert api.get_record(KEY) is None
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', read(client, MANAGE))
        assert token is not None
        client.post(f"{PAGE}fake/", {"csrfmiddlewaretoken": token[1]})
        assert api.migration_is_applied(KEY)

    @pytest.mark.parametrize("url", ALL_PAGES[1:-1])
    def test_pages_answer_get_only(self, operator: Client, url: str) -> None:
        assert operator.post(url).status_code == 405


class TestActions:
    @pytest.mark.parametrize(
        ("path", "before", "after"),
        [
            ("run", states.NOT_RUN, states.ENQUEUED),
            ("run", states.CANCELLED, states.ENQUEUED),
            ("pause", states.ENQUEUED, states.PAUSED),
            ("pause", states.RUNNING, states.PAUSED),
            ("resume", states.PAUSED, states.RUNNING),
            ("retry", states.FAILED, states.RUNNING),
            ("recover", states.RUNNING, states.RUNNING),
            ("cancel", states.RUNNING, states.CANCELLED),
            ("cancel", states.PAUSED, states.CANCELLED),
            ("restart", states.APPLIED, states.ENQUEUED),
            ("fake", states.NOT_RUN, states.APPLIED),
            ("reset", states.APPLIED, states.NOT_RUN),
        ],
    )
    def test_post_does_it(self, operator: Client, db_alias: str, path: str, before: str, after: str) -> None:
        put_into(before, db_alias=db_alias)
        response = operator.post(f"{MANAGE}{db_alias}/adminapp/0001_count_visits/{path}/")
        assert (response.status_code, response["Location"]) == (302, MANAGE)
        level, sentence = get_sentence(response)
        assert level == "success"
        assert sentence == wording.describe_done(BUTTONS[path].name, KEY, db_alias)
        assert api.get_progress(KEY, db_alias).status == after
        event = api.get_events(KEY, db_alias)[-1]
        assert (event.action, event.actor, event.origin) == (BUTTONS[path].name, "operator", "admin")

    def test_table_has_every_action_of_a_person(self) -> None:
        assert [action.name for action in BUTTONS.values()] == list(states.PERSONS_ACTIONS)

    @pytest.mark.parametrize("path", BUTTONS)
    def test_get_only_asks(self, operator: Client, path: str) -> None:
        action = BUTTONS[path]
        status = states.MOVES[action.name].sources[0]
        put_into(status)
        page = read(operator, f"{PAGE}{path}/")
        if action.name == "recover":  # it has just been started, so that it is not stalled yet
            assert "a worker is working on it" in page
        elif action.name == "accept":  # nothing has failed
            assert f"{KEY} has no open failure of an object on database &#x27;default&#x27;." in page
        else:
            assert f"{action.submit}</button>" in page
            assert action.why.split(".")[0] in page
        assert api.get_progress(KEY).status == status

    @pytest.mark.parametrize("path", BUTTONS)
    def test_illegal_move_is_refused_with_a_sentence(self, operator: Client, path: str) -> None:
        action = BUTTONS[path]
        status = next(
            status for status in (states.NOT_RUN, states.RUNNING) if status not in states.MOVES[action.name].sources
        )
        put_into(status)
        url = f"{PAGE}{path}/"
        level, sentence = get_sentence(operator.post(url))
        assert (level, api.get_progress(KEY).status) == ("error", status)
        assert sentence.startswith(f"Migration {KEY} is ")
        page = read(operator, url)
        assert ("is already" if path == "run" else "so it cannot") in page
        assert f"{action.submit}</button>" not in page

    @pytest.mark.parametrize("status", [states.NOT_RUN, *states.STORED])
    def test_buttons_are_those_that_the_api_allows(self, operator: Client, status: str) -> None:
        put_into(status)
        allowed = api.get_allowed_actions(KEY)
        for url in (MANAGE, PAGE):
            found = re.findall(rf'(?:href|formaction)="{PAGE}(\w+)/', read(operator, url))
            assert found == [path for path, action in BUTTONS.items() if action.name in allowed]

    def test_missing_dependency_is_refused(self, operator: Client) -> None:
        url = f"{MANAGE}default/adminapp/0002_forget_names/run/"
        page = read(operator, url)
        assert f"<li>{KEY}</li>" in page
        assert "Run migration</button>" not in page
        level, sentence = get_sentence(operator.post(url))
        assert level == "error"
        assert KEY in sentence

    def test_error_of_the_authors_code_is_a_sentence(self, operator: Client, odd_files: None) -> None:
        url = f"{MANAGE}default/adminapp/0002_refuses/run/"
        assert "ValueError: no queryset today" in read(operator, url)
        level, sentence = get_sentence(operator.post(url))
        assert level == "error"
        assert "no queryset today" in sentence

    def test_action_on_the_detail_page_leads_back_to_it(self, operator: Client) -> None:
        put_into(states.RUNNING)
        page = read(operator, PAGE)
        assert '<input type="hidden" name="from" value="detail">' in page
        assert operator.post(f"{PAGE}pause/", {"from": "detail"})["Location"] == PAGE
        assert f'href="{PAGE}cancel/?from=detail"' in page
        question = read(operator, f"{PAGE}cancel/?from=detail")
        assert f'href="{PAGE}">No, go back' in question
        assert '<input type="hidden" name="from" value="detail">' in question
        assert operator.post(f"{PAGE}reset/", {"from": "detail"})["Location"] == MANAGE

    @pytest.mark.parametrize(
        "url",
        [
            f"{PAGE}explode/",
            f"{MANAGE}default/adminapp/0009_none/",
            f"{MANAGE}default/adminapp/0009_none/rows/",
            f"{MANAGE}default/adminapp/0009_none/run/",
            f"{MANAGE}default/adminapp/0009_none/failures/",
            f"{MANAGE}nowhere/adminapp/0001_count_visits/failures/",
            f"{MANAGE}nowhere/adminapp/0001_count_visits/",
            f"{MANAGE}nowhere/adminapp/0001_count_visits/run/",
        ],
    )
    def test_what_does_not_exist_is_not_found(self, operator: Client, url: str) -> None:
        read(operator, url, 404)
        if not url.endswith(("0009_none/", "count_visits/", "rows/", "failures/")):
            assert operator.post(url).status_code == 404


class TestPages:
    def test_changelist_is_read_only_and_leads_to_the_page(self, operator: Client) -> None:
        put_into(states.PAUSED)
        page = read(operator, "/admin/massmigration/migrationrecord/")
        assert f'<a href="{MANAGE}">Manage migrations</a>' in page
        assert f'<a href="{PAGE}">{KEY}</a>' in page
        assert "paused" in page
        assert "addlink" not in page
        assert "deletelink" not in page
        quoted = "adminapp_3A0001_5Fcount_5Fvisits"
        assert operator.get(f"/admin/massmigration/migrationrecord/{quoted}/change/")["Location"] == PAGE
        boss = Client()
        boss.force_login(User.objects.create_superuser("boss"))
        for path in ("add", f"{quoted}/delete"):
            assert boss.post(f"/admin/massmigration/migrationrecord/{path}/").status_code == 403

    def test_index_names_the_app(self, operator: Client) -> None:
        page = read(operator, "/admin/")
        assert "Mass migrations" in page
        assert "Migration records" in page

    @pytest.mark.parametrize("status", [states.NOT_RUN, *states.STORED])
    def test_every_status_has_a_word(self, viewer: Client, status: str) -> None:
        put_into(status)
        for url in (MANAGE, PAGE):
            assert f">{states.LABELS[status]}</span>" in read(viewer, url)

    def test_each_database_has_its_own_rows(self, operator: Client, db_alias: str) -> None:
        put_into(states.PAUSED, db_alias=db_alias)
        page = read(operator, MANAGE)
        for alias in connections:
            resume = f"{MANAGE}{alias}/adminapp/0001_count_visits/resume/"
            assert (resume in page) == (alias == db_alias)

    def test_confirmation_says_what_it_is_about(self, operator: Client) -> None:
        City.objects.bulk_create(City(name=f"City {number}") for number in range(1234))
        page = read(operator, f"{PAGE}run/")
        for text in ("Count a visit of every city.", "Takes a moment.", "1,234", "LocalBackend", "default"):
            assert text in page
        assert "deletes or overwrites" not in page

    def test_confirmation_warns_of_a_destructive_migration(self, operator: Client) -> None:
        api.fake_migration(KEY, actor="test")
        page = read(operator, f"{MANAGE}default/adminapp/0002_forget_names/run/")
        assert "deletes or overwrites data" in page
        assert "all applied" in page
        assert "Forget the names &lt;of all&gt; cities." in page

    def test_detail_shows_shards_events_and_failures(self, viewer: Client) -> None:
        put_into(states.FAILED)
        record = api.get_record(KEY)
        assert record is not None
        assert record.attempt_uuid is not None
        MigrationShard.objects.create(
            id="one", attempt_uuid=record.attempt_uuid, key=KEY, kind="range", lower="1000", cursor="1500"
        )
        MigrationFailure.objects.create(
            id="two",
            attempt_uuid=record.attempt_uuid,
            key=KEY,
            shard_id="one",
            object_key="1501",
            object_repr="<Atlantis>",
            error_class="ValueError",
            message="under water",
            traceback="Traceback (most recent call last)",
        )
        page = read(viewer, PAGE)
        for text in ("Key range (shard)", "1000", "1500", "the end", "&lt;Atlantis&gt;", "under water", "1501"):
            assert text in page
        assert re.search(r"<td[^>]*>start</td>\s*<td[^>]*>test</td>\s*<td[^>]*>api</td>", page)

    def test_broken_and_orphaned_are_shown_with_their_error(self, operator: Client, odd_files: None) -> None:
        MigrationRecord.objects.create(key="gone:0001_lost", app_label="gone", name="0001_lost", status=states.PAUSED)
        page = read(operator, MANAGE)
        assert ">broken</span>" in page
        assert "this file is &lt;broken&gt;" in page
        assert ">orphaned</span>" in page
        assert "Its file is gone. Bring it back, or reset the record." in page
        assert f"{MANAGE}default/gone/0001_lost/cancel/" in page
        assert f"{MANAGE}default/gone/0001_lost/resume/" not in page
        assert "this file is &lt;broken&gt;" in read(operator, f"{MANAGE}default/adminapp/0001_broken/")
        assert "Cancel migration</button>" in read(operator, f"{MANAGE}default/gone/0001_lost/cancel/")

    def test_permission_hook_that_raises_refuses(self, operator: Client, odd_files: None) -> None:
        assert "0003_asks_badly/run/" not in read(operator, MANAGE)
        assert operator.post(f"{MANAGE}default/adminapp/0003_asks_badly/run/").status_code == 403

    def test_odd_key_is_listed_without_a_link(self, operator: Client) -> None:
        MigrationRecord.objects.create(key="odd", app_label="odd", name="", status=states.PAUSED)
        assert "odd" in read(operator, MANAGE)
        assert "odd" in read(operator, "/admin/massmigration/migrationrecord/")

    @pytest.mark.parametrize("url", ALL_PAGES)
    @pytest.mark.parametrize("status", [states.NOT_RUN, states.FAILED])
    def test_nothing_is_inline(self, operator: Client, url: str, status: str) -> None:
        put_into(status)
        page = InlineFinder()
        page.feed(read(operator, url))
        assert page.found == []

    @pytest.mark.parametrize("url", [MANAGE, PAGE])
    def test_tables_have_captions_and_scopes(self, operator: Client, url: str) -> None:
        put_into(states.FAILED)
        page = read(operator, url)
        assert page.count("<table") == page.count("<caption")
        assert not re.search(r"<th(?! scope=)[ >]", page)


class TestRefresh:
    @pytest.mark.parametrize("url", [MANAGE, PAGE])
    def test_page_holds_what_its_fragment_returns(self, operator: Client, url: str) -> None:
        page = read(operator, url)
        assert f'data-refresh-url="{url}rows/" data-refresh-seconds="2"' in page
        assert "<noscript>" in page
        fragment = read(operator, f"{url}rows/")
        assert fragment.strip() in page
        assert "<html" not in fragment
        assert "csrf" not in fragment

    @pytest.mark.parametrize("url", [MANAGE, PAGE])
    def test_fragment_follows_the_status(self, operator: Client, url: str) -> None:
        assert f"{PAGE}run/" in read(operator, f"{url}rows/")
        put_into(states.RUNNING)
        fragment = read(operator, f"{url}rows/")
        assert ">running</span>" in fragment
        assert f'formaction="{PAGE}pause/' in fragment
        assert f"{PAGE}run/" not in fragment

    def test_fragment_leaves_messages_to_the_page(self, operator: Client) -> None:
        operator.post(f"{PAGE}fake/")
        read(operator, f"{MANAGE}rows/")
        assert "was marked as applied" in read(operator, MANAGE)

    def test_fragment_is_the_same_while_nothing_happens(self, operator: Client) -> None:
        put_into(states.PAUSED)
        for url in (MANAGE, PAGE):
            assert read(operator, f"{url}rows/") == read(operator, f"{url}rows/")


@pytest.mark.django_db(transaction=True, databases=DATABASES)
class TestRealRun:
    @pytest.mark.parametrize("atomic_requests", [False, True])
    def test_click_runs_it_in_a_detached_process(
        self, operator: Client, db_alias: str, atomic_requests: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for alias in connections:
            monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", atomic_requests)
        City.objects.using(db_alias).bulk_create(City(name=f"City {number}") for number in range(500))
        url = f"{MANAGE}{db_alias}/adminapp/0001_count_visits/"
        level, _ = get_sentence(operator.post(f"{url}run/"))
        assert level == "success"
        progress = api.wait_for_migration(KEY, db_alias, timeout=60)
        assert (progress.status, progress.error) == (states.APPLIED, None)
        assert set(City.objects.using(db_alias).values_list("visits", flat=True)) == {1}
        page = read(operator, url)
        assert "500 rows" in page
        assert progress.log_path
        assert progress.log_path in page

    @pytest.mark.parametrize("atomic_requests", [False, True])
    def test_launch_that_fails_is_told_on_the_page(
        self, operator: Client, atomic_requests: bool, monkeypatch: pytest.MonkeyPatch, settings, tmp_path
    ) -> None:
        for alias in connections:
            monkeypatch.setitem(connections[alias].settings_dict, "ATOMIC_REQUESTS", atomic_requests)
        settings.MASSMIGRATION_LOG_DIR = tmp_path / "file" / "logs"
        (tmp_path / "file").write_text("not a folder")
        level, sentence = get_sentence(operator.post(f"{PAGE}run/"))
        assert level == "error"
        assert "MASSMIGRATION_LOG_DIR" in sentence
        assert "the queue could not be reached" in read(operator, MANAGE)

    def test_missing_tables_are_explained(self, operator: Client, db_alias: str) -> None:
        table = MigrationRecord._meta.db_table
        with connections[db_alias].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO hidden_records")
        try:
            command = f"python manage.py migrate --database={db_alias}"
            url = f"{MANAGE}{db_alias}/adminapp/0001_count_visits/"
            for page in (read(operator, MANAGE), read(operator, url)):
                assert page.count(command) == 1
                assert f"{url}run/" not in page
            if db_alias == "default":
                response = operator.get("/admin/massmigration/migrationrecord/")
                assert response["Location"] == MANAGE
            assert operator.get(f"{url}run/").status_code == 404
            assert operator.post(f"{url}run/").status_code == 404
            assert operator.get(f"{MANAGE}{db_alias}/adminapp/0009_none/").status_code == 404
        finally:
            with connections[db_alias].cursor() as cursor:
                cursor.execute(f"ALTER TABLE hidden_records RENAME TO {table}")

    def test_database_that_cannot_be_read_hides_no_other(self, operator: Client, db_alias: str) -> None:
        put_into(states.PAUSED, db_alias=db_alias)
        table = MigrationAttempt._meta.db_table
        with connections[db_alias].cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} RENAME TO hidden_attempts")
        try:
            page = read(operator, MANAGE)
            url = f"{MANAGE}{db_alias}/adminapp/0001_count_visits/"
            for text in (page, read(operator, url), read(operator, f"{url}rows/")):
                assert f"Database &#x27;{db_alias}&#x27; cannot be read: " in text
            assert page.count("cannot be read") == 1
            assert page.count("<caption>Database <strong>") == len(list(connections)) - 1
        finally:
            with connections[db_alias].cursor() as cursor:
                cursor.execute(f"ALTER TABLE hidden_attempts RENAME TO {table}")


def test_urls_need_no_urlconf_of_the_user() -> None:
    assert reverse("admin:massmigration_manage") == MANAGE
    assert resolve(PAGE).url_name == "massmigration_detail"


class InlineFinder(HTMLParser):
    """Collects what a Content-Security-Policy of ``default-src 'self'`` would refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = dict(attrs)
        if tag == "style" or (tag == "script" and "src" not in names):
            self.found.append(tag)
        self.found += [name for name in names if name == "style" or name.startswith("on")]
        sources = [names.get(name) or "" for name in ("src", "href", "action", "formaction")]
        self.found += [url for url in sources if url.startswith(("http:", "https:", "//", "javascript:"))]


@pytest.fixture
def odd_files(settings):
    """Let the app have other files: one that is broken, and ones whose code raises errors."""
    settings.MASSMIGRATION_MODULES = {"adminapp": "tests.adminapp.odd_massmigrations"}


@pytest.mark.django_db(databases=["default", "postgres"])
@pytest.mark.parametrize(
    ("version", "markup"), [((6, 0), '<div class="breadcrumbs">'), ((6, 1), '<ol class="breadcrumbs">')]
)
def test_breadcrumbs_are_marked_up_as_the_admins_own(
    admin_client: Client, monkeypatch: pytest.MonkeyPatch, version: tuple[int, int], markup: str
) -> None:
    monkeypatch.setattr("django.VERSION", version)
    page = read(admin_client, MANAGE)
    assert page.count('class="breadcrumbs"') == 1
    assert markup in page
