"""What ``manage.py check`` says, each problem with its own id and hint."""

from typing import Final

from django.core import checks

from massmigration.checks.files import check_migrations
from massmigration.checks.site import check_backends, check_pools, check_settings

__all__ = [
    "TAG",
    "check_backends",
    "check_migrations",
    "check_pools",
    "check_settings",
    "register_checks",
]

TAG: Final = "massmigration"


def register_checks() -> None:
    """Register all checks under the tag ``massmigration``."""
    for check in (check_settings, check_pools, check_migrations, check_backends):
        checks.register(check, TAG)
