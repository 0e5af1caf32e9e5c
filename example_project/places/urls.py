"""URLs of the public site."""

from django.urls import path
from places import views

app_name = "places"
urlpatterns = [
    path("", views.index, name="index"),
    path("countries/", views.countries, name="countries"),
    path("city/<str:slug>/", views.city, name="city"),  # str: Django's own slug converter takes ASCII only
]
