"""Where the secrets of the example project come from: the environment, else Google's Secret Manager."""

import os

from django.core.exceptions import ImproperlyConfigured

TIMEOUT_SECONDS = 10


def get_secret(variable, secret_id):
    """Return a secret.

    Args:
        variable: The environment variable that holds it, as ``gcloud run deploy --set-secrets`` does.
        secret_id: Its name in the Secret Manager of the project, read where the variable is not set: App Engine cannot
            put a secret into the environment.

    Raises:
        ImproperlyConfigured: It is in neither of them; the message says how to put it there.
    """
    if value := os.environ.get(variable):
        return value
    name = f"projects/{os.environ.get('GOOGLE_CLOUD_PROJECT') or 'PROJECT'}/secrets/{secret_id}/versions/latest"
    try:
        return read_secret(name)
    except Exception as error:  # Google's libraries have no common base for "no rights", "not there" and "no network"
        reason = (str(error).strip() or repr(error)).splitlines()[0].rstrip(".")
        raise ImproperlyConfigured(
            f"There is no secret {variable}: the environment variable is not set, and {name} cannot be read from "
            f"Secret Manager ({type(error).__name__}: {reason}). Set the variable, or make the secret (gcloud secrets "
            f"create {secret_id} --data-file=-) and give the service account the role "
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
