"""What is different on App Engine and Cloud Run: the address, the database, secrets, and static files."""

import os
import tempfile
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from config.secrets import get_fallbacks, get_secret

DJANGAE_APPS = ["djangae", "djangae.tasks"]
DJANGAE_MIDDLEWARE = "djangae.tasks.middleware.TaskEnvironmentMiddleware"

LOCAL_ONLY = (
    "These settings are for one's own machine: they have DEBUG and a secret key that everybody knows. Deploy to App "
    "Engine or Cloud Run, where others replace them, or set EXAMPLE_LOCAL=1 where nobody but you can reach the site."
)
NO_DATABASE = (
    "No database is named: SQLite would be lost with the instance. Set EXAMPLE_POSTGRES to the name of a database on "
    "Cloud SQL, or EXAMPLE_DATASTORE to 1, in app.yaml or with --set-env-vars."
)
NO_PROJECT = "No project is named. Set GOOGLE_CLOUD_PROJECT to the id of your project on Google Cloud."

THIRTY_DAYS = 30 * 24 * 60 * 60


def is_app_engine():
    """Whether this is an instance of App Engine's standard environment."""
    return os.environ.get("GAE_ENV") == "standard"


def is_cloud_run():
    """Whether this is an instance of a service of Cloud Run, or the task of a job there."""
    return bool({"K_SERVICE", "CLOUD_RUN_JOB"} & os.environ.keys())


def is_here():
    """Whether this process runs on App Engine or Cloud Run."""
    return is_app_engine() or is_cloud_run()


def uses_djangae(backend):
    """Whether a backend, named by its dotted path, needs Djangae's apps and URLs."""
    return backend.startswith("massmigration.backends.djangae.")


def get_datastore(base_dir):
    """Return the settings of a database on Firestore in Datastore mode, or on its emulator."""
    project = os.environ.get("GOOGLE_CLOUD_PROJECT")
    if not project:
        raise ImproperlyConfigured(NO_PROJECT)
    database = {
        "ENGINE": "gcloudc.db.backends.datastore",
        "PROJECT": project,
        "INDEXES_FILE": str(base_dir / "djangaeidx.yaml"),  # for searches such as __icontains; not needed by us
    }
    if os.environ.get("DATASTORE_EMULATOR_HOST"):
        database["OPTIONS"] = {"count_mode": "emulated"}
    return database


def get_settings(base_dir, databases, middleware):
    """Return the settings that replace those for one's own machine.

    Args:
        base_dir: The folder of ``manage.py``.
        databases: ``DATABASES`` so far.
        middleware: ``MIDDLEWARE`` so far.

    Raises:
        ImproperlyConfigured: A secret or the database is missing.
    """
    hosts = [host for name in os.environ.get("ALLOWED_HOSTS", "").split(",") if (host := name.strip())]
    return {
        "DEBUG": False,
        "SECRET_KEY": get_secret("DJANGO_SECRET_KEY", "django-secret-key"),
        "SECRET_KEY_FALLBACKS": get_fallbacks("DJANGO_SECRET_KEY_FALLBACK", "django-secret-key"),
        "DATABASES": {"default": _get_database(databases["default"])},
        "MIDDLEWARE": _add_whitenoise(middleware),
        # Always ours as well: tasks, cron and warm-up come to it, whatever domain visitors use. Google routes by host
        # name, so that requests for somebody else's name below it never get here.
        "ALLOWED_HOSTS": [".appspot.com" if is_app_engine() else ".run.app", *hosts],
        # Never the wildcards above: there, everybody else's sites would be trusted, too.
        "CSRF_TRUSTED_ORIGINS": [f"https://{host}" for host in hosts if not host.startswith((".", "*"))],
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),  # Google's front end sets it, nobody else can
        "SECURE_SSL_REDIRECT": True,
        "SECURE_REDIRECT_EXEMPT": [r"^_ah/", r"^massmigration/", r"^tasks/"],  # come as plain HTTP within App Engine
        "SECURE_HSTS_SECONDS": THIRTY_DAYS,
        "SESSION_COOKIE_SECURE": True,
        "CSRF_COOKIE_SECURE": True,
        # W005, W021: whether subdomains and browsers' preload lists are to know is for the owner of the domain to say.
        "SILENCED_SYSTEM_CHECKS": ["security.W005", "security.W021"],
        "MASSMIGRATION_LOG_DIR": Path(tempfile.gettempdir()) / "massmigration",  # nothing else can be written to
    }


def _get_database(database):
    if database["ENGINE"].endswith(".postgresql"):
        # HOST and USER are PGHOST, /cloudsql/PROJECT:REGION:INSTANCE, and PGUSER.
        return {
            **database,
            "PASSWORD": get_secret("PGPASSWORD", "postgres-password"),
            "CONN_MAX_AGE": 60,
            "CONN_HEALTH_CHECKS": True,
        }
    if database["ENGINE"].endswith(".sqlite3") and not os.environ.get("EXAMPLE_DB"):
        raise ImproperlyConfigured(NO_DATABASE)
    return database


def _add_whitenoise(middleware):
    """Serve static files, on Cloud Run all of them, on App Engine what the handlers of app.yaml leave."""
    security = "django.middleware.security.SecurityMiddleware"
    place = middleware.index(security) + 1
    return [*middleware[:place], "whitenoise.middleware.WhiteNoiseMiddleware", *middleware[place:]]
