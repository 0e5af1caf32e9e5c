"""A MapperMigration with update_fields: one call per object, written back in bulk."""

from django.utils.text import slugify
from massmigration import MapperMigration
from places.models import City


class Migration(MapperMigration):
    """Give every city a slug: São Paulo becomes são-paulo-3448439.

    The operation changes the very field that the queryset filters on; as rows are visited by key, none is
    skipped.
    """

    schema_dependencies = [("places", "0002_slugs_sizes_names_countries")]
    update_fields = ["slug"]

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).filter(slug="")

    def operation(self, city, db_alias):
        city.slug = slugify(f"{city.name} {city.pk}", allow_unicode=True)
