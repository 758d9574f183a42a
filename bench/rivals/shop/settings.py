"""Django's settings, as for production: connections stay open, nothing is loaded that is not used."""

import os
from urllib.parse import unquote, urlsplit

_database = urlsplit(os.environ["RIVAL_DATABASE_URL"])

DEBUG = False
SECRET_KEY = "bench"
ALLOWED_HOSTS = ["*"]
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "bench.rivals.shop.urls"
WSGI_APPLICATION = "bench.rivals.shop.wsgi.application"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth", "rest_framework", "bench.rivals.shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _database.path.lstrip("/"),
        "USER": unquote(_database.username or ""),
        "PASSWORD": unquote(_database.password or ""),
        "HOST": _database.hostname,
        "PORT": _database.port,
        "CONN_MAX_AGE": None,
    }
}
REDIS_URL = os.environ["RIVAL_REDIS_URL"]
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["bench.rivals.shop.limits.KeyAuthentication"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    # Never reached, as ours: what costs is the counting.
    "DEFAULT_THROTTLE_RATES": {"key": "100000000/min", "user": "100000000/min"},
}
LIMITS = os.environ.get("RIVAL_LIMITS", "on")
LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s %(message)s"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
# A message is acknowledged after its task, so that a worker's death loses no payment. The rest is Celery's
# default.
CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True

API_KEY = os.environ["RIVAL_API_KEY"]
CANCEL_WINDOW_SECONDS = float(os.environ["RIVAL_CANCEL_WINDOW_SECONDS"])
PROVIDER_URL = os.environ["RIVAL_PROVIDER_URL"]
PROVIDER_AUTH = (os.environ["RIVAL_PROVIDER_KEY"], os.environ["RIVAL_PROVIDER_SECRET"])
PROVIDER_ACCOUNT = os.environ["RIVAL_PROVIDER_ACCOUNT"]
WEBHOOK_SECRET = os.environ["RIVAL_WEBHOOK_SECRET"]
