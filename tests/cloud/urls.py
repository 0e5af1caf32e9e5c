"""The URLs of the site on the clouds: the admin, our handler of tasks, and djangae's."""

from importlib.util import find_spec

from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("admin/", admin.site.urls),
    path("tasks/", include("djangae.tasks.urls")),
]
if find_spec("massmigration.urls"):
    urlpatterns.append(path("massmigration/", include("massmigration.urls")))
