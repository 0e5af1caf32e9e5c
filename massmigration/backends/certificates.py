"""The certificates that a token's issuer signs with: downloaded by one thread at a time, and kept as long as allowed.

Two libraries were tried against the tests of this module, and neither replaces it:

- ``google.oauth2.id_token`` with a session of CacheControl downloads for each token while the issuer is down, keeps
  an answer of nonsense for as long as its ``Cache-Control`` says, does not look for a key that it does not know
  before then, and takes tokens that do not name their key.
- ``jwt.PyJWKClient`` (PyJWT 2.15) holds a lock during the download, so that one stranger's token delays all others,
  downloads again and again while the issuer is down, and does not read ``Cache-Control``.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    import requests

FETCH_SECONDS: Final = 5.0
"""The longest that a request waits for a download, whatever the issuer does."""
ABANDON_SECONDS: Final = 30.0
"""After this time a download that has not ended does not keep another from starting. Its thread may be in a process
that was forked, or the issuer may send a byte now and then."""
REFETCH_SECONDS: Final = 60.0
"""The shortest time between two downloads for a key that is unknown, so that forged tokens cause no more of them."""
RETRY_SECONDS: Final = 10.0
"""The pause after a failed download. It doubles with each further one, up to ``REFETCH_SECONDS``."""
DEFAULT_MAX_AGE: Final = 300.0
LONGEST_MAX_AGE: Final = 24 * 60 * 60.0
MAX_BYTES: Final = 1_000_000


class CertificatesUnreachable(Exception):
    """Nothing can be verified for now, because the certificates cannot be downloaded."""


class _Download(NamedTuple):
    ended: threading.Event
    started_at: float


class Certificates:
    """The issuer's certificates by key id.

    A token whose key is known never waits for a download that another one needs. At the URL is JSON from key id to PEM.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._clock = clock
        self._lock = threading.Lock()  # never held during a download
        self._keys: dict[str, str] = {}
        self._expires_at = float("-inf")
        self._next_fetch_at = float("-inf")
        self._failures = 0
        self._download: _Download | None = None

    def get(self, key_id: str) -> dict[str, str]:
        """Return the certificates, downloaded again if they are too old or lack this key; it may still be missing.

        Raises:
            CertificatesUnreachable: There are none that are fresh enough, or the key may be one of those that could not
                be downloaded.
        """
        with self._lock:
            now = self._clock()
            has_fresh = now < self._expires_at
            if has_fresh and key_id in self._keys:
                return self._keys
            download = self._download
            if download is not None and now >= download.started_at + ABANDON_SECONDS:
                download = None
            is_ours = download is None and now >= self._next_fetch_at
            if is_ours:
                download = self._start(now)
        # Callers wait if no certificates are fresh. With an unknown key only one waits, because strangers make up many.
        if download is not None and (is_ours or not has_fresh):
            download.ended.wait(FETCH_SECONDS)
        with self._lock:
            is_fresh = self._clock() < self._expires_at
            if is_fresh and (key_id in self._keys or not (self._failures or self._download)):
                return self._keys
        raise CertificatesUnreachable(f"The certificates cannot be downloaded from {self.url}.")

    def _start(self, now: float) -> _Download:
        self._download = download = _Download(threading.Event(), now)
        threading.Thread(target=self._run, args=(download,), name="massmigration-certificates", daemon=True).start()
        return download

    def _run(self, download: _Download) -> None:
        found = _download(self.url)
        with self._lock:
            if self._download is download:
                self._download = None
                self._keep(found)
        download.ended.set()

    def _keep(self, found: tuple[dict[str, str], float] | None) -> None:
        now = self._clock()
        if found is None:
            self._next_fetch_at = now + min(RETRY_SECONDS * 2**self._failures, REFETCH_SECONDS)
            self._failures = min(self._failures + 1, 10)
            return
        self._failures = 0
        self._keys, max_age = found
        self._next_fetch_at = now + REFETCH_SECONDS
        self._expires_at = now + max(max_age, REFETCH_SECONDS)


def _download(url: str) -> tuple[dict[str, str], float] | None:
    """Return certificates and for how many seconds they are valid, or None if they cannot be downloaded."""
    import requests

    try:
        with requests.Session() as session, session.get(url, timeout=FETCH_SECONDS, stream=True) as response:
            body = _read(response) if response.status_code == 200 else b""
            headers = response.headers
        keys = json.loads(body)
    except Exception:  # the thread cannot report it, and each of them means the same: none
        return None
    is_usable = isinstance(keys, dict) and all(isinstance(value, str) for value in keys.values())
    return (keys, _get_max_age(headers)) if keys and is_usable else None


def _read(response: requests.Response) -> bytes:
    deadline, body = time.monotonic() + ABANDON_SECONDS, b""
    for part in response.iter_content(chunk_size=16_384):
        body += part
        if len(body) > MAX_BYTES or time.monotonic() > deadline:
            return b""
    return body


def _get_max_age(headers: Mapping[str, str]) -> float:
    """Return for how many seconds an answer may be kept (RFC 9111, ``max-age`` less ``Age``)."""
    found = re.search(r"\bmax-age=(\d{1,9})", headers.get("Cache-Control", ""))
    if found is None:
        return DEFAULT_MAX_AGE
    age = re.fullmatch(r"\d{1,9}", headers.get("Age", "0"))
    return min(float(found[1]) - float(age[0] if age else 0), LONGEST_MAX_AGE)
