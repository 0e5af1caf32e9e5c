"""Tokens by which Google proves in whose name it calls: OpenID Connect, verified with cached certificates.

https://cloud.google.com/tasks/docs/creating-http-target-tasks#token says what Cloud Tasks sends, and
https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken what is to be verified.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from massmigration.exceptions import BackendNotInstalled

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS: Final = frozenset({"https://accounts.google.com", "accounts.google.com"})
CLOCK_SKEW_SECONDS: Final = 30

FETCH_SECONDS: Final = 5.0
REFETCH_SECONDS: Final = 60.0
"""An unknown key is looked up at most so often, so that nobody makes us ask Google for each made-up token."""
RETRY_SECONDS: Final = 5.0
"""How long after a failure to ask again."""
DEFAULT_MAX_AGE: Final = 300.0
LONGEST_MAX_AGE: Final = 24 * 60 * 60.0

_REMOVED_SIGNATURE: Final = "SIGNATURE_REMOVED_BY_GOOGLE"  # https://cloud.google.com/run/docs/troubleshooting


class TokenRefused(Exception):
    """The token does not prove that the caller is the one that we wait for; the sentence says why."""


class CertificatesUnreachable(Exception):
    """Nothing can be verified for now, because the certificates cannot be had."""


class Certificates:
    """The issuer's certificates by key id, kept for as long as its ``Cache-Control`` allows.

    Args:
        url: Where they are, as JSON from key id to PEM.
        clock: Returns seconds that never go back.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self._clock = clock
        self._lock = threading.Lock()
        self._keys: dict[str, str] = {}
        self._expires_at = float("-inf")
        self._next_fetch_at = float("-inf")

    def get(self, key_id: str) -> dict[str, str]:
        """Return the certificates, fetched anew if they are too old or do not have this key.

        Raises:
            CertificatesUnreachable: There are none that are fresh enough.
        """
        with self._lock:
            now = self._clock()
            is_wanting = now >= self._expires_at or key_id not in self._keys
            if is_wanting and now >= self._next_fetch_at:
                self._fetch(now)
            if now >= self._expires_at:
                raise CertificatesUnreachable(f"The certificates cannot be had from {self.url}.")
            return self._keys

    def _fetch(self, now: float) -> None:
        self._next_fetch_at = now + RETRY_SECONDS
        found = _download(self.url)
        if found is not None:
            self._keys, max_age = found
            self._next_fetch_at = now + REFETCH_SECONDS
            self._expires_at = now + max(max_age, REFETCH_SECONDS)


certificates = Certificates(CERTIFICATES_URL)


def check_token(authorization: str, *, audience: str, email: str) -> None:
    """Raise an error unless the header proves that Google calls us in the name of this account.

    Args:
        authorization: The header ``Authorization`` of the request.
        audience: For whom the token has to be made.
        email: The e-mail address of the service account.

    Raises:
        TokenRefused: It proves something else, or nothing.
        CertificatesUnreachable: It cannot be verified for now.
    """
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise TokenRefused("the request has no token")
    if token.endswith(_REMOVED_SIGNATURE):
        raise TokenRefused(
            "Cloud Run took the token's signature off, because the service itself requires authentication; let it "
            "allow unauthenticated requests: tasks are verified here"
        )
    claims = _decode(token.strip(), audience)
    if claims.get("iss") not in ISSUERS:
        raise TokenRefused(f"the token's issuer is {claims.get('iss')!r}, not Google")
    if claims.get("email_verified") is not True:
        raise TokenRefused("the token's e-mail address is not verified")
    if not email or claims.get("email") != email:
        raise TokenRefused(f"the token is {claims.get('email')!r}'s, not {email!r}'s")


def _decode(token: str, audience: str) -> Mapping[str, Any]:
    try:
        from google.auth import jwt
    except ImportError as error:
        raise BackendNotInstalled(
            "Tokens of Cloud Tasks cannot be verified without google-auth. Run: pip install 'massmigration[cloudtasks]'"
        ) from error
    try:
        key_id = jwt.decode_header(token).get("kid")
        if not isinstance(key_id, str):
            raise TokenRefused("the token does not name its key")
        keys = certificates.get(key_id)
        claims: Mapping[str, Any] = jwt.decode(
            token, certs=keys, audience=audience, clock_skew_in_seconds=CLOCK_SKEW_SECONDS
        )
    except (ValueError, TypeError, RecursionError) as error:  # what a hostile text brings the decoder to raise
        raise TokenRefused(str(error)[:200]) from error
    return claims


def _download(url: str) -> tuple[dict[str, str], float] | None:
    """Return certificates and for how many seconds they are good, or None if there are none to be had."""
    import requests
    from google.auth import exceptions
    from google.auth.transport.requests import Request

    try:
        with requests.Session() as session:
            response = Request(session)(url, timeout=FETCH_SECONDS)
        keys = json.loads(response.data) if response.status == 200 else None
    except (exceptions.TransportError, ValueError):
        return None
    is_usable = isinstance(keys, dict) and all(isinstance(value, str) for value in keys.values())
    return (keys, _get_max_age(response.headers)) if keys and is_usable else None


def _get_max_age(headers: Mapping[str, str]) -> float:
    """Return for how many seconds an answer may be kept (RFC 9111, ``max-age`` less ``Age``)."""
    found = re.search(r"\bmax-age=(\d{1,9})", headers.get("Cache-Control", ""))
    if found is None:
        return DEFAULT_MAX_AGE
    age = re.fullmatch(r"\d{1,9}", headers.get("Age", "0"))
    return min(float(found[1]) - float(age[0] if age else 0), LONGEST_MAX_AGE)
