"""Queues that deliver several tasks at the same time to threads of one process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, ClassVar
from urllib.request import Request, build_opener

from django.conf import settings
from django.db import connections, transaction
from django.utils.module_loading import import_string

from massmigration.backends import payloads
from massmigration.backends.base import WATCH, BaseBackend


class PoolBackend(BaseBackend):
    """Hands each task to a pool of threads of this process, after the commit; the watch is left out."""

    pool: ClassVar[ThreadPoolExecutor | None] = None
    errors: ClassVar[list[BaseException]] = []

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Have a thread of the pool call the task once the transaction is committed and the delay is over."""
        if task != WATCH:
            call = partial(self._put, partial(self.call, task, dict(arguments)), delay_seconds)
            transaction.on_commit(call, using=db_alias)

    @classmethod
    def _put(cls, call: Callable[[], None], delay_seconds: float) -> None:
        assert cls.pool is not None
        if delay_seconds:
            threading.Timer(delay_seconds, cls.pool.submit, [call]).start()
        else:
            cls.pool.submit(call)

    @classmethod
    def call(cls, task: str, arguments: dict[str, Any]) -> None:
        """Call the task, and close the thread's connections."""
        try:
            import_string(task)(**arguments)
        except BaseException as error:
            cls.errors.append(error)
            raise
        finally:
            connections.close_all()


class HttpBackend(BaseBackend):
    """Sends each task to the site by HTTP, after the commit, as the queues of App Engine do, but many at a time."""

    def enqueue(
        self, task: str, arguments: dict[str, Any], *, db_alias: str, delay_seconds: float = 0, name: str = ""
    ) -> None:
        """Have a thread bring the task to the site."""
        if task != WATCH:
            timer = threading.Timer(delay_seconds, self._send, [payloads.dump(task, arguments)])
            timer.daemon = True
            transaction.on_commit(timer.start, using=db_alias)

    @staticmethod
    def _send(body: bytes) -> None:
        headers = {"Content-Type": payloads.CONTENT_TYPE, "X-AppEngine-QueueName": "default"}
        build_opener().open(Request(f"{settings.THREADS_SITE}/massmigration/run/", body, headers), timeout=60).close()
