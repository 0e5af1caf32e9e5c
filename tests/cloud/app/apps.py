"""The app that the tests migrate on Datastore and Firestore, and on SQL for comparison."""

from django.apps import AppConfig


class CloudAppConfig(AppConfig):
    name = "tests.cloud.app"
    label = "cloudapp"
    default_auto_field = "django.db.models.BigAutoField"
