"""The app whose mass migrations the tests of the admin start."""

from django.apps import AppConfig


class AdminAppConfig(AppConfig):
    name = "tests.adminapp"
    label = "adminapp"
