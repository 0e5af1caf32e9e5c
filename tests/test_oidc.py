"""Tokens of HTTP targets: only Google is let in, in the name of our account, for our URL, now."""

from __future__ import annotations

import base64
import datetime
import functools
import json
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest
from django.test import Client

from massmigration import api
from massmigration.backends import certificates as certs
from massmigration.backends import oidc
from massmigration.backends.certificates import Certificates, CertificatesUnreachable
from massmigration.backends.oidc import TokenRefused, check_token
from tests.test_task_handler import RECOVER, RUN, ask_for, deliver_all, post, shard, take_snapshot

pytest.importorskip("google.auth", reason="google-auth is not installed: pip install 'massmigration[cloudtasks]'")
pytest.importorskip("cryptography", reason="cryptography is not installed: pip install cryptography")

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt, jwt
from google.oauth2 import id_token

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "postgres"])

__all__ = ["shard"]

URL = "https://jobs.example.com"
ACCOUNT = "massmigration@project.iam.gserviceaccount.com"
STRANGER = "somebody@elsewhere.iam.gserviceaccount.com"


class Key:
    """An RSA key with its self-signed certificate.

    Args:
        key_id: What tokens name it by.
    """

    def __init__(self, key_id: str) -> None:
        self.key_id = key_id
        private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        self.signer = crypt.RSASigner.from_string(pem, key_id)
        self.nameless_signer = crypt.RSASigner.from_string(pem)
        name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, key_id)])
        now = datetime.datetime.now(datetime.timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now)
            .not_valid_after(now + datetime.timedelta(days=1))
            .sign(private, hashes.SHA256())
        )
        self.certificate = certificate.public_bytes(serialization.Encoding.PEM).decode()


@functools.cache  # they cost most of the time of these tests
def get_key(key_id: str, number: int = 0) -> Key:
    """Return the key of this name; another number is another key under the same name."""
    return Key(key_id)


class Issuer:
    """A server of certificates, as Google's; what it answers can be changed."""

    def __init__(self) -> None:
        self.keys: list[Key] = []
        self.status = 200
        self.headers = {"Cache-Control": "public, max-age=600, must-revalidate"}
        self.text: str | None = None
        self.count = 0
        self.before: Callable[[], object] = lambda: None
        self.drip_seconds = 0.0
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.count += 1
                issuer.before()
                answer = {key.key_id: key.certificate for key in issuer.keys}
                self.send_response(issuer.status)
                for name, value in issuer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                body = (json.dumps(answer) if issuer.text is None else issuer.text).encode()
                if not issuer.drip_seconds:
                    self.wfile.write(body)
                    return
                with suppress(OSError):  # the client has gone
                    for byte in body[:200]:
                        self.wfile.write(bytes([byte]))
                        time.sleep(issuer.drip_seconds)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the name of the base class)
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/certs"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        """Close the server; connections are refused from now on."""
        self.server.shutdown()
        self.server.server_close()


class Clock:
    """Seconds that pass when the test says so."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def google() -> Key:
    return get_key("google-1")


@pytest.fixture(scope="module")
def forger() -> Key:
    return get_key("google-1", 1)


@pytest.fixture
def issuer(google, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    issuer = Issuer()
    issuer.keys = [get_key("google-0"), google]
    yield issuer
    issuer.stop()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(autouse=True)
def http_target(settings, monkeypatch, issuer, clock):
    """Let the site be an HTTP target whose tokens our own issuer signs, on a queue that the test delivers."""
    for name in ("GAE_ENV", "K_SERVICE", "TASKS_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(oidc, "certificates", Certificates(issuer.url, clock=clock))
    settings.MASSMIGRATION_MODULES = {"testapp": "tests.faults.massmigrations", "adminapp": None}
    settings.MASSMIGRATION_BACKEND = "tests.faults.queues.ListBackend"
    settings.MASSMIGRATION_TASK_URL = URL + "/"
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ACCOUNT


def claim(**changes: Any) -> dict[str, Any]:
    """Return what Cloud Tasks claims, with changes; None takes a claim out."""
    claims = {
        "iss": "https://accounts.google.com",
        "aud": URL,
        "azp": "1234567890",
        "sub": "1234567890",
        "email": ACCOUNT,
        "email_verified": True,
        "iat": int(time.time()),
        "exp": int(time.time()) + 3600,
    } | changes
    return {name: value for name, value in claims.items() if value is not None}


def make_token(key: Key, *, nameless: bool = False, **changes: Any) -> str:
    return jwt.encode(key.nameless_signer if nameless else key.signer, claim(**changes)).decode()


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def encode(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def test_a_good_token_is_let_in_and_the_certificates_are_fetched_once(google, issuer, shard):
    answers = [post(ask_for(shard), bearer(make_token(google))).status_code for _ in range(5)]
    assert answers == [200] * 5
    assert issuer.count == 1


def test_the_older_spelling_of_the_issuer_counts(google, shard):
    assert post(ask_for(shard), bearer(make_token(google, iss="accounts.google.com"))).status_code == 200


@pytest.mark.parametrize("seconds", [-20, 20])
def test_clocks_may_differ_a_little(seconds, google, shard):
    now = int(time.time())
    token = make_token(
        google, iat=now + seconds if seconds > 0 else now - 3600, exp=now + (seconds if seconds < 0 else 99)
    )
    assert post(ask_for(shard), bearer(token)).status_code == 200


class Case(NamedTuple):
    """A request that must not be let in.

    Attributes:
        name: What is wrong with it.
        make: Makes the headers from Google's key and a forger's of the same id.
    """

    name: str
    make: Callable[[Key, Key], dict[str, str]]


def claiming(**changes: Any) -> Callable[[Key, Key], dict[str, str]]:
    return lambda google, forger: bearer(make_token(google, **changes))


def unsigned(header: Any, signature: str = "") -> Callable[[Key, Key], dict[str, str]]:
    return lambda google, forger: bearer(f"{encode(header)}.{encode(claim())}.{signature}")


def with_secret_of_all(google: Key, forger: Key) -> dict[str, str]:
    """Sign with the public certificate as if it were a shared secret."""
    import hashlib
    import hmac

    text = f"{encode({'alg': 'HS256', 'kid': 'google-1'})}.{encode(claim())}"
    return bearer(f"{text}.{encode(hmac.digest(google.certificate.encode(), text.encode(), hashlib.sha256))}")


def with_other_claims(google: Key, forger: Key) -> dict[str, str]:
    header, _, signature = make_token(google, email=STRANGER).split(".")
    return bearer(f"{header}.{encode(claim())}.{signature}")


HOSTILE = [
    Case("no token", lambda google, forger: {}),
    Case("an empty token", lambda google, forger: {"Authorization": "Bearer "}),
    Case("a password", lambda google, forger: {"Authorization": "Basic dXNlcjpwYXNz"}),
    Case("a good token of another scheme", lambda google, forger: {"Authorization": f"Token {make_token(google)}"}),
    Case("headers of Cloud Tasks alone", lambda google, forger: {"X-CloudTasks-QueueName": "default"}),
    Case("a header of App Engine alone", lambda google, forger: {"X-AppEngine-QueueName": "default"}),
    Case("a header of cron alone", lambda google, forger: {"X-Appengine-Cron": "true"}),
    Case("no token at all", lambda google, forger: bearer("nonsense")),
    Case("dots", lambda google, forger: bearer("..")),
    Case("not base64", lambda google, forger: bearer("ä.ö.ü")),
    Case("not JSON", lambda google, forger: bearer(f"{encode(b'x')}.{encode(b'y')}.{encode(b'z')}")),
    Case("a header that is a list", unsigned(["RS256"])),
    Case("JSON a thousand deep", lambda google, forger: bearer(f"{encode(b'[' * 5000)}.{encode({})}.")),
    Case("a megabyte", lambda google, forger: bearer("x" * 1_000_000)),
    Case("another audience", claiming(aud="https://other.example.com")),
    Case("the URL of the request as audience", claiming(aud=f"{URL}{RUN}")),
    Case("the audience with a slash", claiming(aud=f"{URL}/")),
    Case("a list of audiences", claiming(aud=[URL, "https://other.example.com"])),
    Case("no audience", claiming(aud=None)),
    Case("another account", claiming(email=STRANGER)),
    Case("our account in capitals", claiming(email=ACCOUNT.upper())),
    Case("no account", claiming(email=None)),
    Case("an account that is not verified", claiming(email_verified=False)),
    Case("a verification that is a text", claiming(email_verified="true")),
    Case("no verification", claiming(email_verified=None)),
    Case("expired", claiming(iat=int(time.time()) - 7200, exp=int(time.time()) - 3600)),
    Case("expired a minute ago", lambda google, forger: bearer(make_token(google, exp=int(time.time()) - 60))),
    Case("issued in the future", lambda google, forger: bearer(make_token(google, iat=int(time.time()) + 3600))),
    Case("without an end", claiming(exp=None)),
    Case("an end that is a text", claiming(exp="tomorrow")),
    Case("another issuer", claiming(iss="https://accounts.example.com")),
    Case("no issuer", claiming(iss=None)),
    Case("another key under Google's name", lambda google, forger: bearer(make_token(forger))),
    Case("a key that nobody knows", lambda google, forger: bearer(make_token(get_key("other")))),
    Case("a key without a name", unsigned({"alg": "RS256"})),
    Case("Google's key without its name", lambda google, _: bearer(make_token(google, nameless=True))),
    Case("a name of a key that is a list", unsigned({"alg": "RS256", "kid": ["google-1"]})),
    Case("algorithm none", unsigned({"alg": "none", "kid": "google-1"})),
    Case("no signature", unsigned({"alg": "RS256", "kid": "google-1"})),
    Case("a shared secret that is public", with_secret_of_all),
    Case("other claims under the signature", with_other_claims),
    Case(
        "a signature that Cloud Run took off",
        unsigned({"alg": "RS256", "kid": "google-1"}, "SIGNATURE_REMOVED_BY_GOOGLE"),
    ),
]


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_who_cannot_prove_to_be_our_account_changes_nothing(case: Case, google, forger, shard, caplog):
    headers = case.make(google, forger)
    before = take_snapshot()
    for answer in (post(ask_for(shard), headers), Client().get(RECOVER, headers=headers)):
        assert (answer.status_code, answer.content) == (403, b"Forbidden")
    assert take_snapshot() == before
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert all(len(record.getMessage()) < 400 for record in caplog.records)


def test_a_token_is_no_substitute_for_the_signature(google, shard):
    before = take_snapshot()
    assert post(ask_for(shard)[:-3], bearer(make_token(google))).status_code == 403
    assert take_snapshot() == before


def test_what_cloud_run_does_to_tokens_is_explained(caplog):
    post(b"x", bearer(f"{encode({})}.{encode({})}.SIGNATURE_REMOVED_BY_GOOGLE"))
    assert "let it allow unauthenticated requests" in caplog.text


@pytest.mark.parametrize("account", ["", None])
def test_without_the_account_nobody_is_let_in(account, google, shard, settings, caplog):
    settings.MASSMIGRATION_TASK_SERVICE_ACCOUNT = ""
    before = take_snapshot()
    token = make_token(google, email=account)
    assert post(ask_for(shard), bearer(token)).status_code == 403
    assert "are not both set" in caplog.text
    assert take_snapshot() == before
    with pytest.raises(TokenRefused):
        check_token(f"Bearer {token}", audience=URL, email="")


@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE"])
def test_an_emulator_opens_no_door_in_production(variable, shard, monkeypatch):
    headers = {"X-AppEngine-QueueName": "default"}
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9022")
    monkeypatch.setenv(variable, "standard")
    assert post(ask_for(shard), headers).status_code == 403
    monkeypatch.delenv(variable)
    assert post(ask_for(shard), headers).status_code == 200


def test_a_migration_runs_to_its_end_with_tokens(google, shard):
    deliver_all(bearer(make_token(google)))
    assert api.get_progress("testapp:0001_writes_back").status == "applied"


def test_cloud_scheduler_may_recover(google):
    answer = Client(enforce_csrf_checks=True).post(RECOVER, headers=bearer(make_token(google)))
    assert (answer.status_code, answer.json()) == (200, {"recovered": [], "failed": []})


def test_a_new_certificate_is_fetched_when_a_token_names_it(google, issuer, clock, shard):
    body, new = ask_for(shard), get_key("google-2")
    assert post(body, bearer(make_token(google))).status_code == 200
    issuer.keys = [google, new]
    clock.now += certs.REFETCH_SECONDS
    assert post(body, bearer(make_token(new))).status_code == 200
    assert issuer.count == 2
    issuer.keys = [new]
    clock.now += 600
    assert post(body, bearer(make_token(google))).status_code == 403, "it was withdrawn"
    assert post(body, bearer(make_token(new))).status_code == 200


def test_names_of_keys_that_are_made_up_do_not_make_us_ask_each_time(google, issuer, clock):
    body, names = b"x", [f"made-up-{number}" for number in range(20)]
    tokens = [f"{encode({'alg': 'RS256', 'kid': name})}.{encode(claim())}." for name in names]
    assert [post(body, bearer(token)).status_code for token in tokens] == [403] * 20
    assert issuer.count == 1
    clock.now += certs.REFETCH_SECONDS
    assert [post(body, bearer(token)).status_code for token in tokens] == [403] * 20
    assert issuer.count == 2


def test_certificates_are_kept_as_long_as_their_issuer_says(issuer, clock):
    issuer.headers = {"Cache-Control": "max-age=600", "Age": "100"}
    certificates = Certificates(issuer.url, clock=clock)
    certificates.get("google-1")
    clock.now += 499
    certificates.get("google-1")
    assert issuer.count == 1
    clock.now += 1
    assert set(certificates.get("google-1")) == {"google-0", "google-1"}
    assert issuer.count == 2


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, certs.DEFAULT_MAX_AGE),
        ({"Cache-Control": "no-store"}, certs.DEFAULT_MAX_AGE),
        ({"Cache-Control": "max-age=0"}, certs.REFETCH_SECONDS),
        ({"Cache-Control": "max-age=600", "Age": "700"}, certs.REFETCH_SECONDS),
        ({"Cache-Control": "max-age=600", "Age": "unknown"}, 600),
        ({"Cache-Control": "max-age=999999999"}, certs.LONGEST_MAX_AGE),
    ],
)
def test_odd_headers_keep_them_within_bounds(headers, seconds, issuer, clock):
    issuer.headers = headers
    certificates = Certificates(issuer.url, clock=clock)
    certificates.get("google-1")
    clock.now += seconds - 1
    certificates.get("google-1")
    assert issuer.count == 1
    clock.now += 1
    certificates.get("google-1")
    assert issuer.count == 2


@pytest.mark.parametrize(
    "fault", [{"status": 500}, {"text": "<html>"}, {"text": "[]"}, {"text": "{}"}, {"text": '{"a": 1}'}]
)
def test_an_issuer_that_answers_nonsense_means_later(fault, google, issuer, clock, shard, caplog):
    for name, value in fault.items():
        setattr(issuer, name, value)
    body, headers = ask_for(shard), bearer(make_token(google))
    before = take_snapshot()
    for _ in range(3):
        answer = post(body, headers)
        assert (answer.status_code, answer["Retry-After"]) == (503, "10")
    assert issuer.count == 1, "it is given a rest"
    assert take_snapshot() == before
    assert {record.levelno for record in caplog.records} == {logging.WARNING}
    issuer.status, issuer.text = 200, None
    clock.now += certs.RETRY_SECONDS
    assert post(body, headers).status_code == 200


def test_an_issuer_that_is_down_is_not_missed_before_its_certificates_are_old(google, issuer, clock, shard):
    body, headers = ask_for(shard), bearer(make_token(google))
    assert post(body, headers).status_code == 200
    issuer.stop()
    clock.now += 599
    assert post(body, headers).status_code == 200
    clock.now += 1
    assert post(body, headers).status_code == 503


def made_up(number: int = 0) -> dict[str, str]:
    """Return the header of a token whose key nobody has."""
    return bearer(f"{encode({'alg': 'RS256', 'kid': f'made-up-{number}'})}.{encode(claim())}.")


@pytest.mark.parametrize("fault", [{"status": 500}, {"text": "<html>"}, {"text": '{"a": 1}'}])
def test_an_issuer_that_is_slow_and_down_gets_a_rest_that_grows(fault, google, issuer, clock, shard):
    for name, value in fault.items():
        setattr(issuer, name, value)

    def take_long() -> None:
        clock.now += certs.FETCH_SECONDS

    issuer.before = take_long
    body, headers = ask_for(shard), bearer(make_token(google))
    downloads = []
    for _ in range(4):
        for _ in range(5):
            assert post(body, headers).status_code == 503
        downloads.append(issuer.count)
        clock.now += certs.RETRY_SECONDS
    assert downloads == [1, 2, 2, 3], "a rest of one, then of two, then of four RETRY_SECONDS, from the end of each"


def test_a_stranger_does_not_delay_a_task_whose_key_is_known(google, issuer, clock, shard):
    body, headers, let_go = ask_for(shard), bearer(make_token(google)), threading.Event()
    assert post(body, headers).status_code == 200
    clock.now += certs.REFETCH_SECONDS
    issuer.before = lambda: let_go.wait(10)
    strangers = [threading.Thread(target=post, args=(b"x", made_up(number))) for number in range(3)]
    for stranger in strangers:
        stranger.start()
    deadline = time.monotonic() + 10
    while issuer.count < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    begun = time.monotonic()
    assert post(body, headers).status_code == 200
    took = time.monotonic() - begun
    let_go.set()
    for stranger in strangers:
        stranger.join()
    assert took < 2
    assert issuer.count == 2


def test_of_many_strangers_one_waits_for_the_issuer(issuer, clock):
    certificates, let_go = Certificates(issuer.url, clock=clock), threading.Event()
    certificates.get("google-1")
    clock.now += certs.REFETCH_SECONDS
    issuer.before = lambda: let_go.wait(10)
    first = threading.Thread(target=lambda: suppress(CertificatesUnreachable) and certificates.get("made up"))
    first.start()
    while issuer.count < 2:
        time.sleep(0.01)
    begun = time.monotonic()
    with pytest.raises(CertificatesUnreachable):
        certificates.get("made up, too")
    assert time.monotonic() - begun < 2
    let_go.set()
    first.join()


def test_an_issuer_that_sends_a_byte_now_and_then_keeps_nobody_for_long(issuer, clock, monkeypatch):
    monkeypatch.setattr(certs, "FETCH_SECONDS", 0.5)
    issuer.drip_seconds = 0.05
    certificates, begun = Certificates(issuer.url, clock=clock), time.monotonic()
    with pytest.raises(CertificatesUnreachable):
        certificates.get("google-1")
    assert time.monotonic() - begun < 3


def test_a_download_that_never_ends_does_not_keep_the_next_one_from_starting(issuer, clock, monkeypatch):
    monkeypatch.setattr(certs, "FETCH_SECONDS", 0.3)
    let_go = threading.Event()
    issuer.before = lambda: let_go.wait(20)
    certificates = Certificates(issuer.url, clock=clock)
    for _ in range(2):
        with pytest.raises(CertificatesUnreachable):
            certificates.get("google-1")
    assert issuer.count == 1
    issuer.before = lambda: None
    clock.now += certs.ABANDON_SECONDS
    monkeypatch.setattr(certs, "FETCH_SECONDS", 5)
    assert "google-1" in certificates.get("google-1")
    let_go.set()


def test_a_key_that_may_be_new_is_not_refused_while_the_issuer_is_down(google, issuer, clock, shard):
    body, new = ask_for(shard), get_key("google-2")
    assert post(body, bearer(make_token(google))).status_code == 200
    clock.now += certs.REFETCH_SECONDS
    issuer.status = 500
    assert [post(body, bearer(make_token(new))).status_code for _ in range(2)] == [503, 503]
    assert post(body, bearer(make_token(google))).status_code == 200, "and the others are served"


def test_threads_fetch_together(issuer, clock):
    certificates = Certificates(issuer.url, clock=clock)
    threads = [threading.Thread(target=certificates.get, args=("google-1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert issuer.count == 1


def test_without_certificates_there_is_an_error(clock):
    with pytest.raises(CertificatesUnreachable, match=r"cannot be downloaded from http://127\.0\.0\.1:1/"):
        Certificates("http://127.0.0.1:1/", clock=clock).get("google-1")


def test_googles_certificates_are_where_its_library_looks_for_them():
    assert oidc.CERTIFICATES_URL == id_token._GOOGLE_OAUTH2_CERTS_URL
    assert set(id_token._GOOGLE_ISSUERS) == oidc.ISSUERS
