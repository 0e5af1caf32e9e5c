"""Django settings of the example project, for one's own machine; config/google.py fits them for the internet."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

from config import google, logging

BASE_DIR = Path(__file__).resolve().parent.parent

# EXAMPLE_DB names another SQLite file; EXAMPLE_POSTGRES a PostgreSQL database instead, whose server and user
# are taken from PGHOST, PGPORT, PGUSER and PGPASSWORD.
DATABASE_PATH = Path(os.environ.get("EXAMPLE_DB") or BASE_DIR / "db.sqlite3").resolve()
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DATABASE_PATH,
        "OPTIONS": {"timeout": 20},
    }
}
if postgres := os.environ.get("EXAMPLE_POSTGRES"):
    DATABASES["default"] = {"ENGINE": "django.db.backends.postgresql", "NAME": postgres}

# EXAMPLE_DATASTORE=1 takes Firestore in Datastore mode, of the project that GOOGLE_CLOUD_PROJECT names.
if os.environ.get("EXAMPLE_DATASTORE"):
    DATABASES["default"] = google.get_datastore(BASE_DIR)

DATA_DIR = DATABASE_PATH.parent / "data"  # what load_cities writes beside the database

# manage.py says EXAMPLE_LOCAL=1, a server has to be told. What follows is for nobody else to reach.
if not (google.is_here() or os.environ.get("EXAMPLE_LOCAL")):
    raise ImproperlyConfigured(google.LOCAL_ONLY)
SECRET_KEY = "for this demonstration only"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "[::1]"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "massmigration",
    "places",
]

MIDDLEWARE = [
    *logging.MIDDLEWARE,
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "static-root"  # where collectstatic puts what App Engine and Cloud Run serve
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LOGGING = logging.LOGGING

MASSMIGRATION_LOG_DIR = DATA_DIR / "logs"

# Where migrations run: here by default, on App Engine and Cloud Run by app.yaml or the deploy command. The first is
# the only one that has to change; the others say where the queue is, and matter to Google's queues only.
MASSMIGRATION_BACKEND = os.environ.get("MASSMIGRATION_BACKEND", "massmigration.backends.local.LocalBackend")
MASSMIGRATION_TASK_QUEUE = os.environ.get("MASSMIGRATION_TASK_QUEUE", "")
MASSMIGRATION_TASK_LOCATION = os.environ.get("MASSMIGRATION_TASK_LOCATION", "")
MASSMIGRATION_TASK_URL = os.environ.get("MASSMIGRATION_TASK_URL", "")
MASSMIGRATION_TASK_SERVICE_ACCOUNT = os.environ.get("MASSMIGRATION_TASK_SERVICE_ACCOUNT", "")

if google.uses_djangae(MASSMIGRATION_BACKEND):
    INSTALLED_APPS += google.DJANGAE_APPS
    MIDDLEWARE.insert(0, google.DJANGAE_MIDDLEWARE)
    CLOUD_TASKS_LOCATION = MASSMIGRATION_TASK_LOCATION
    CSRF_USE_SESSIONS = True  # a check of djangae's insists

if google.is_here():
    globals().update(google.get_settings(BASE_DIR, DATABASES, MIDDLEWARE))
