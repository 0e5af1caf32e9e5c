"""Tokens by which Google proves in whose name it calls: OpenID Connect, verified with cached certificates.

https://cloud.google.com/tasks/docs/creating-http-target-tasks#token says what Cloud Tasks sends, and
https://developers.google.com/identity/openid-connect/openid-connect#validatinganidtoken what is to be verified.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from massmigration.backends.certificates import Certificates
from massmigration.exceptions import BackendNotInstalled

CERTIFICATES_URL: Final = "https://www.googleapis.com/oauth2/v1/certs"
ISSUERS: Final = frozenset({"https://accounts.google.com", "accounts.google.com"})
CLOCK_SKEW_SECONDS: Final = 30

_REMOVED_SIGNATURE: Final = "SIGNATURE_REMOVED_BY_GOOGLE"  # https://cloud.google.com/run/docs/troubleshooting


class TokenRefused(Exception):
    """The token does not prove that the caller is the expected one; the message says why."""


certificates = Certificates(CERTIFICATES_URL)


def check_token(authorization: str, *, audience: str, email: str) -> None:
    """Raise an error unless the header ``Authorization`` proves that the account calls, and means this audience.

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
    except (ValueError, TypeError, RecursionError) as error:  # whatever a hostile text makes the decoder raise
        raise TokenRefused(str(error)[:200]) from error
    return claims
