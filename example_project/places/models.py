"""Cities, their other names, and the countries they lie in."""

from django.db import models
from django.urls import reverse


class Country(models.Model):
    """A country; imported from a CSV file by a mass migration."""

    code = models.CharField("ISO code", max_length=2, primary_key=True)
    name = models.CharField(max_length=100)
    continent = models.CharField(max_length=20)
    capital = models.CharField(max_length=100, blank=True)
    currency = models.CharField(max_length=3, blank=True)
    city_count = models.PositiveIntegerField("cities", default=0)
    population = models.PositiveBigIntegerField("people in cities", default=0)

    class Meta:
        ordering = ["name"]
        verbose_name_plural = "countries"

    def __str__(self):
        return self.name


class City(models.Model):
    """A populated place of GeoNames, stored under its number there."""

    class Size(models.TextChoices):
        """Classes of population, the least that belongs to each is in ``MINIMUM_POPULATION``."""

        METROPOLIS = "metropolis"
        CITY = "city"
        TOWN = "town"
        VILLAGE = "village"
        HAMLET = "hamlet"
        UNKNOWN = "unknown", "unknown size"

    MINIMUM_POPULATION = {
        Size.METROPOLIS: 1_000_000,
        Size.CITY: 100_000,
        Size.TOWN: 10_000,
        Size.VILLAGE: 1_000,
        Size.HAMLET: 1,
    }

    id = models.PositiveIntegerField("GeoNames number", primary_key=True)
    name = models.CharField(max_length=100)
    country_code = models.CharField(max_length=2, db_index=True)
    latitude = models.FloatField()
    longitude = models.FloatField()
    population = models.PositiveIntegerField(db_index=True)
    timezone = models.CharField(max_length=40)
    alternate_names = models.TextField(
        blank=True, help_text="Separated by commas, as in the old days; AlternateName takes their place."
    )

    # What the mass migrations fill in.
    slug = models.CharField(max_length=120, blank=True, default="", db_index=True)
    size = models.CharField(max_length=10, blank=True, default="", choices=Size.choices)

    class Meta:
        verbose_name_plural = "cities"

    def __str__(self):
        return self.name

    def get_absolute_url(self):
        return reverse("places:city", args=[self.slug])


class AlternateName(models.Model):
    """What else a city is called, one row for each name."""

    # The constraint's index begins with the city, a second one is not needed.
    city = models.ForeignKey(City, on_delete=models.CASCADE, related_name="names", db_index=False)
    name = models.CharField(max_length=200)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["city", "name"], name="places_one_name_per_city")]

    def __str__(self):
        return self.name
