"""URLs of the example project: the public site, the admin, and what Google's services call."""

from django.conf import settings
from django.contrib import admin
from django.urls import include, path

from config import google
from config.views import warm_up

urlpatterns = [
    path("admin/", admin.site.urls),
    path("massmigration/", include("massmigration.urls")),
    path("_ah/warmup", warm_up),
    path("", include("places.urls")),
]

if google.uses_djangae(settings.MASSMIGRATION_BACKEND):
    urlpatterns.insert(0, path("tasks/", include("djangae.tasks.urls")))
