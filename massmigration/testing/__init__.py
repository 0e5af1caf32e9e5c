"""For authors' tests: run a migration within a test, a queue in memory, and the conformance suite for backends."""

from massmigration.testing.conformance import BackendConformance
from massmigration.testing.memory import MemoryQueueBackend
from massmigration.testing.running import run_migration

__all__ = ["BackendConformance", "MemoryQueueBackend", "run_migration"]
