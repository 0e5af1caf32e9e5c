"""What a person may do to a migration, one module per action; each returns once it is written."""

from massmigration.executor.accept import Acceptance, accept
from massmigration.executor.fake import fake
from massmigration.executor.go_on import recover, resume, retry
from massmigration.executor.reset import reset
from massmigration.executor.start import restart, start
from massmigration.executor.stop import cancel, pause

__all__ = [
    "Acceptance",
    "accept",
    "cancel",
    "fake",
    "pause",
    "recover",
    "reset",
    "restart",
    "resume",
    "retry",
    "start",
]
