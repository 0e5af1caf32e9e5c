"""Long-running data migrations for Django; importing this package loads no model."""

from massmigration.definitions.base import BaseMigration
from massmigration.definitions.batch import BatchMigration
from massmigration.definitions.custom import CustomMigration
from massmigration.definitions.mapper import MapperMigration
from massmigration.definitions.simple import SimpleMigration
from massmigration.exceptions import RetryLater

__version__ = "0.1.0"

__all__ = [
    "BaseMigration",
    "BatchMigration",
    "CustomMigration",
    "MapperMigration",
    "RetryLater",
    "SimpleMigration",
    "__version__",
]
