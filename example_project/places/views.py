"""The pages of the public site."""

from django.core.paginator import Paginator
from django.db.models import Q
from django.shortcuts import get_object_or_404, render
from places.models import AlternateName, City, Country

CITIES_PER_PAGE = 50


def index(request):
    """Show the largest cities, or those that are called as ``?q=`` says."""
    query = request.GET.get("q", "").strip()
    cities = City.objects.order_by("-population", "pk").defer("alternate_names")
    if query:
        called_so = AlternateName.objects.filter(name__istartswith=query).values("city")
        cities = cities.filter(Q(name__icontains=query) | Q(pk__in=called_so))
    page = Paginator(cities, CITIES_PER_PAGE).get_page(request.GET.get("page"))
    context = {"query": query, "page": page, "city_count": City.objects.count()}
    return render(request, "places/index.html", context)


def city(request, slug):
    """Show one city."""
    found = get_object_or_404(City, slug=slug)
    context = {
        "city": found,
        "country": Country.objects.filter(code=found.country_code).first(),
        "names": found.names.order_by("name"),
    }
    return render(request, "places/city.html", context)


def countries(request):
    """Show all countries."""
    return render(request, "places/countries.html", {"countries": Country.objects.all()})
