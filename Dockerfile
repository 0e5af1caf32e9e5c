# The example project as an image for Cloud Run: `gcloud run deploy --source .` builds it; see docs/cloud-run.md.
FROM python:3.13-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH=/app PORT=8080
# Elsewhere than on Cloud Run the image does not start: it would have DEBUG, and a key that everybody knows. To try it on
# your own machine: docker run -e EXAMPLE_LOCAL=1
ENV EXAMPLE_LOCAL=
WORKDIR /app

COPY requirements.txt ./
RUN pip install --no-cache-dir --requirement requirements.txt

# From this source tree; with the release, which requirements.txt then names, leave the first line out.
COPY massmigration massmigration
COPY example_project example_project
RUN EXAMPLE_LOCAL=1 python example_project/manage.py collectstatic --noinput

RUN useradd --system app
USER app

# As in app.yaml, which says why; `exec`, so that gunicorn hears when it is to stop.
CMD exec gunicorn --bind :$PORT --workers 2 --threads 4 --timeout 0 --no-control-socket --chdir example_project config.wsgi
