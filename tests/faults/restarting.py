"""A PostgreSQL server of its own, which may be restarted, in place of the one that an alias means."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from django.core.management import call_command
from django.db import connections

from tests.servers import find_postgres, start_postgres

NAME = "restarted"


class OwnPostgres:
    """While it is entered, the alias means this server, in this process and in children that are given ``changes``."""

    def __init__(self, db_alias: str) -> None:
        self._alias = db_alias
        self.changes: dict[str, Any] = {}

    def __enter__(self) -> OwnPostgres:
        url = start_postgres()
        assert url is not None
        with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {NAME}")
            # What was committed has to be there after a restart, or there would be nothing to find out.
            connection.execute(f"ALTER DATABASE {NAME} SET synchronous_commit = on")
            row = connection.execute("SHOW data_directory").fetchone()
            assert row is not None
            self._data = Path(row[0])
        self.changes = {"NAME": NAME, "PORT": urlsplit(url).port}
        self._change(self.changes)
        call_command("migrate", database=self._alias, verbosity=0)
        return self

    def _change(self, changes: dict[str, Any]) -> None:
        connection = connections[self._alias]
        connection.close()
        self._before = {name: connection.settings_dict[name] for name in changes}
        connection.settings_dict.update(changes)

    def __exit__(self, *error: object) -> None:
        self._change(self._before)
        self._control("stop")

    def restart(self) -> None:
        """Kill it and start it again: what was not committed is gone, and every connection."""
        self._control("restart")

    def _control(self, action: str) -> None:
        binaries = find_postgres()
        assert binaries is not None
        owner = self._data.stat()
        identity: dict[str, Any] = {}
        if os.geteuid() == 0:  # which PostgreSQL refuses to be
            identity = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        subprocess.run(
            [str(binaries / "pg_ctl"), action, "-D", str(self._data), "-m", "immediate", "-w", "-s", "-l", "/dev/null"],
            check=True,
            cwd=self._data.parent,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **identity,
        )
