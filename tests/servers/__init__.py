"""Finds, starts and stops the real servers that the tests run on."""

from tests.servers.clouds import empty_databases, find_missing, name_project, start_emulators
from tests.servers.postgres import INSTALL_POSTGRES, find_postgres, get_postgres, start_postgres
from tests.servers.processes import Server, get_directory, get_free_port, is_listening, is_test_run

__all__ = [
    "INSTALL_POSTGRES",
    "Server",
    "empty_databases",
    "find_missing",
    "find_postgres",
    "get_directory",
    "get_free_port",
    "get_postgres",
    "is_listening",
    "is_test_run",
    "name_project",
    "start_emulators",
    "start_postgres",
]
