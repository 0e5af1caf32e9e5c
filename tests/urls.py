"""The URLs of the tests' site: the admin, and what queues call."""

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("massmigration/", include("massmigration.urls")),
]
