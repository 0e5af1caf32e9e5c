"""Where log lines go: to Cloud Logging on App Engine and Cloud Run, to the console here if it is asked for."""

import os

# On Google's platforms each line is one JSON object on stdout, which the platform itself reads: severity, fields,
# labels and trace arrive without a request of ours. Client().setup_logging() would, on App Engine, send lines from a
# thread in the background, over the network: a thread that stands still between requests, and whose last lines are
# lost with the instance. The price of JSON is that nothing prettier is on stdout, where nobody looks there anyway.
IS_ON_GOOGLE = any(os.environ.get(name) for name in ("GAE_ENV", "K_SERVICE", "CLOUD_RUN_JOB"))

# EXAMPLE_LOG_LEVEL=INFO shows the lines on the console. By default they are not shown: the commands say what matters.
CONSOLE_LEVEL = os.environ.get("EXAMPLE_LOG_LEVEL", "")

GOOGLE = {
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

CONSOLE = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"plain": {"format": "{asctime} {levelname} {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "plain"}},
    "loggers": {"massmigration": {"handlers": ["console"], "level": CONSOLE_LEVEL, "propagate": False}},
}

if IS_ON_GOOGLE:
    LOGGING = GOOGLE
elif CONSOLE_LEVEL:
    LOGGING = CONSOLE
else:
    LOGGING = {}

# Tells the handler the request that a line belongs to, so that the Logs Explorer shows it below that request.
MIDDLEWARE = ["google.cloud.logging_v2.handlers.middleware.RequestMiddleware"] if IS_ON_GOOGLE else []
