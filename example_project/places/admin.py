"""The admin pages of cities and countries."""

from django.contrib import admin
from places.models import AlternateName, City, Country


class AlternateNameInline(admin.TabularInline):
    model = AlternateName
    extra = 0


@admin.register(City)
class CityAdmin(admin.ModelAdmin):
    list_display = ["name", "country_code", "population", "size", "slug"]
    list_filter = ["size", "country_code"]
    search_fields = ["name", "slug"]
    show_full_result_count = False
    ordering = ["-population"]
    inlines = [AlternateNameInline]
    fieldsets = [
        (None, {"fields": ["id", "name", "country_code", "population"]}),
        ("Where", {"fields": [("latitude", "longitude"), "timezone"]}),
        ("Filled in by mass migrations", {"fields": ["slug", "size"]}),
        ("From the old days", {"fields": ["alternate_names"]}),
    ]

    def get_readonly_fields(self, request, obj=None):
        return ["id"] if obj else []


@admin.register(Country)
class CountryAdmin(admin.ModelAdmin):
    list_display = ["name", "code", "continent", "capital", "currency", "city_count", "population"]
    list_filter = ["continent"]
    search_fields = ["name", "code", "capital"]
    readonly_fields = ["city_count", "population"]
