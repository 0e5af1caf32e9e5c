"""Where the secrets of the example project come from: the environment, else Google's Secret Manager."""

import os

from django.core.exceptions import ImproperlyConfigured

TIMEOUT_SECONDS = 10


def get_fallbacks(variable, secret_id):
    """Return the values that a secret had before and that still count, such as keys that waiting tasks are signed with.

    Args:
        variable: With an "S" it is the environment variable that holds them, separated by spaces; with "_VERSIONS" the
            one that names their versions in Secret Manager, such as "2 3".
        secret_id: The secret's name in Secret Manager.

    Raises:
        ImproperlyConfigured: One of them cannot be read.
    """
    versions = os.environ.get(f"{variable}_VERSIONS", "").split()
    return os.environ.get(f"{variable}S", "").split() + [get_secret("", secret_id, version) for version in versions]


def get_secret(variable, secret_id, version="latest"):
    """Return a secret.

    Args:
        variable: The environment variable that holds it, as ``gcloud run deploy --set-secrets`` does.
        secret_id: Its name in the Secret Manager of the project, read where the variable is not set: App Engine cannot
            put a secret into the environment.
        version: Which of its versions there.

    Raises:
        ImproperlyConfigured: It is in neither of them; the message says how to put it there.
    """
    if value := os.environ.get(variable):
        return value
    name = f"projects/{os.environ.get('GOOGLE_CLOUD_PROJECT') or 'PROJECT'}/secrets/{secret_id}/versions/{version}"
    try:
        return read_secret(name)
    except Exception as error:  # Google's libraries have no common base for "no rights", "not there" and "no network"
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise ImproperlyConfigured(
            f"There is no secret {variable or secret_id}: the environment variable is not set, and {name} cannot be "
            f"read from Secret Manager ({type(error).__name__}: {reason}). Set the variable, or make the secret "
            f"(gcloud secrets create {secret_id} --data-file=-) and give the service account the role "
            "roles/secretmanager.secretAccessor on it."
        ) from error


def read_secret(name, client=None):
    """Return the text of a version of a secret.

    Args:
        name: ``projects/PROJECT/secrets/ID/versions/latest``.
        client: Speaks to Secret Manager; None makes one for the account that this process runs as.
    """
    if client is None:
        from google.cloud import secretmanager

        client = secretmanager.SecretManagerServiceClient()
    response = client.access_secret_version(request={"name": name}, timeout=TIMEOUT_SECONDS)
    return response.payload.data.decode().strip()
