"""Django settings of the tests, and of the processes that tests start."""

from __future__ import annotations

import os

from tests import servers

DIRECTORY = servers.get_directory()

SECRET_KEY = "only for tests"
DEBUG = False
ALLOWED_HOSTS = ["*"]
ROOT_URLCONF = "tests.urls"
USE_TZ = True
STATIC_URL = "static/"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "massmigration",
    "tests.testapp",
    "tests.adminapp",
]
MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
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

# A file also in tests, so that other processes can open it; they are told its name by the environment.
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("MASSMIGRATION_TEST_DB_DEFAULT", ":memory:"),
        # A journal that is kept is as good against kill -9 as one that is made for each transaction, and cheaper.
        "OPTIONS": {"init_command": "PRAGMA synchronous = OFF; PRAGMA journal_mode = PERSIST"},
        "TEST": {"NAME": DIRECTORY / "test_default.sqlite3"},
    }
}
if postgres := servers.get_postgres():
    DATABASES["postgres"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ.get("MASSMIGRATION_TEST_DB_POSTGRES", "postgres"),
        "TEST": {"NAME": "test_massmigration"},
        **postgres,
    }

MASSMIGRATION_LOG_DIR = DIRECTORY / f"logs{os.environ.get('PYTEST_XDIST_WORKER', '')}"
