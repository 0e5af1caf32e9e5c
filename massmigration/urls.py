"""The URLs that queues and cron call: ``path("massmigration/", include("massmigration.urls"))``."""

from __future__ import annotations

from typing import Final

from django.urls import path

from massmigration import views

app_name: Final = "massmigration"

urlpatterns = [
    path("run/", views.run_task, name="run_task"),
    path("recover/", views.recover, name="recover"),
]
