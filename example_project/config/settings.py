"""Django settings of the example project: a demonstration on one's own machine, not fit for the internet."""

import os
from pathlib import Path

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

DATA_DIR = DATABASE_PATH.parent / "data"  # what load_cities writes beside the database

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
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MASSMIGRATION_LOG_DIR = DATA_DIR / "logs"
