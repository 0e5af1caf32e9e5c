"""Where log lines go: to Cloud Logging on App Engine and Cloud Run, to the console here if it is asked for."""

import os

from config import google

# EXAMPLE_LOG_LEVEL=INFO shows the lines on the console. By default they are not shown: the commands say what matters.
LEVEL = os.environ.get("EXAMPLE_LOG_LEVEL", "")

# On Google's platforms each line is one JSON object on stdout, which the platform itself reads: severity, fields,
# labels and trace arrive without a request of ours. Client().setup_logging() would, on App Engine, send lines from a
# thread in the background, over the network: a thread that stands still between requests, and whose last lines are
# lost with the instance. The price of JSON is that nothing prettier is on stdout, where nobody looks there anyway.
TO_CLOUD_LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "handlers": {
        "google": {
            "class": "google.cloud.logging.handlers.StructuredLogHandler",
            "stream": "ext://sys.stdout",
            "project_id": os.environ.get("GOOGLE_CLOUD_PROJECT"),  # without it, traces are not found by their number
        },
    },
    "root": {"handlers": ["google"], "level": "INFO"},
}

TO_CONSOLE = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"massmigration": {"handlers": ["console"], "level": LEVEL, "propagate": False}},
}

if google.is_here():
    LOGGING = TO_CLOUD_LOGGING
elif LEVEL:
    LOGGING = TO_CONSOLE
else:
    LOGGING = {}

# Tells the handler the request that a line belongs to, so that the Logs Explorer shows it below that request.
MIDDLEWARE = ["google.cloud.logging_v2.handlers.middleware.RequestMiddleware"] if google.is_here() else []
