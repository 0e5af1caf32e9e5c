"""A MapperMigration without update_fields: the operation saves by itself, here into another table."""

from massmigration import MapperMigration
from places.models import AlternateName, City


class Migration(MapperMigration):
    """Split the alternate names of the cities into a table of their own.

    The new rows and the cursor are committed together, so that each name is made once, whatever happens.
    The old column stays; a later Django migration removes it when nothing reads it any more.
    """

    dependencies = [("places", "0002_city_sizes")]
    operator_notes = "Makes more than a million rows; the site stays usable meanwhile."

    def get_queryset(self, db_alias):
        return City.objects.using(db_alias).exclude(alternate_names="")

    def operation(self, city, db_alias):
        names = dict.fromkeys(city.alternate_names.split(","))
        AlternateName.objects.using(db_alias).bulk_create(AlternateName(city=city, name=name) for name in names)
