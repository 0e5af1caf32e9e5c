"""What App Engine asks of an instance before visitors come to it."""

from django.db import connection
from django.http import HttpResponse
from massmigration import api


def warm_up(request):
    """Connect to the database and read the files of the mass migrations, so that no visitor has to wait for that."""
    connection.ensure_connection()
    return HttpResponse(f"Warm; {len(api.get_all_migrations())} mass migrations.\n", content_type="text/plain")
