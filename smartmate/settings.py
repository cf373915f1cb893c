"""Settings, safe for production by default. What differs between deployments comes from the environment.

docs/settings.md lists every variable.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from django.utils.translation import gettext_lazy as _

from notifications.beat import beat_schedule
from smartmate.addresses import broker_address, database, mail_server, redis_address
from smartmate.brand import BRAND
from smartmate.env import comma_separated, refused, secret, service_settings, switch, text, whole_number, word
from smartmate.postgres import bound_waits, connect_to_one_host
from smartmate.triggers import TRIGGERS

DEBUG = switch("DEBUG", default=False)
SECRET_KEY = secret("SECRET_KEY")
ALLOWED_HOSTS = comma_separated("ALLOWED_HOSTS")
CSRF_TRUSTED_ORIGINS = comma_separated("CSRF_TRUSTED_ORIGINS")

# The API's documentation page needs ninja's files. As an installed app, ninja would be imported by each worker too.
_NINJA = Path(getattr(find_spec("ninja"), "origin", "")).parent

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "notifications",
    "smartmate",
]
MIDDLEWARE = [
    "notifications.monitoring.middleware.ProbesMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "smartmate.security_policy.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
ROOT_URLCONF = "smartmate.urls"
WSGI_APPLICATION = "smartmate.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [_NINJA / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("UserAttributeSimilarityValidator", "MinimumLengthValidator", "CommonPasswordValidator")
]

# PostgreSQL. Every wait has a timeout, so that a database that hangs causes an error.
DATABASES = {
    "default": database(
        "DATABASE_URL", connect_timeout=5, application_name="smartmate", connection_factory=connect_to_one_host
    )
}
DATABASE_TIMEOUT = whole_number("DATABASE_TIMEOUT", 30, minimum=1, maximum=2_000_000)
if switch("DATABASE_POOLED", default=False):
    # PgBouncer refuses the timeouts below as a startup parameter, so the role sets them. It may run the next statement
    # on another connection, where a server-side cursor of the last one does not exist. docs/operations.md, PgBouncer.
    DATABASES["default"]["DISABLE_SERVER_SIDE_CURSORS"] = True
else:
    DATABASES["default"]["OPTIONS"].setdefault(
        "options",
        f"-c statement_timeout={DATABASE_TIMEOUT}s -c lock_timeout=10s -c idle_in_transaction_session_timeout=60s",
    )
bound_waits(connect=5, statement=DATABASE_TIMEOUT + 5)
DATABASES["default"]["CONN_MAX_AGE"] = whole_number("CONN_MAX_AGE", 60, minimum=0, maximum=10**9)
DATABASES["default"]["CONN_HEALTH_CHECKS"] = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

LANGUAGES = [("en", _("English")), ("zh-hans", _("Simplified Chinese"))]
LANGUAGE_CODE = word("LANGUAGE_CODE", "en", [code for code, _name in LANGUAGES])
TIME_ZONE = text("TIME_ZONE", "UTC")
try:
    ZoneInfo(TIME_ZONE)
except (OSError, ValueError, ZoneInfoNotFoundError):
    raise refused("TIME_ZONE", "must be a name of the time zone database, such as Asia/Shanghai") from None
USE_TZ = True

STATIC_URL = "static/"
STATICFILES_DIRS = [_NINJA / "static"]
WHITENOISE_USE_FINDERS = True  # serves the admin's files from where they are installed; no collectstatic step

HTTPS = switch("HTTPS", default=True)
"""False only where browsers reach the admin by plain HTTP, as in the demo."""
SECURE_SSL_REDIRECT = HTTPS
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if switch("BEHIND_PROXY", default=False) else None
SECURE_HSTS_SECONDS = 31_536_000 if HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = HTTPS
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = LANGUAGE_COOKIE_SECURE = HTTPS
SESSION_COOKIE_HTTPONLY = True

# Celery. docs/operations.md gives the reason of each choice.
REDIS_URL = redis_address("REDIS_URL")
CELERY_BROKER_URL = broker_address("CELERY_BROKER_URL", "REDIS_URL")
if CELERY_BROKER_URL.startswith("amqps://"):
    # None stands for the host of the address. Without this key the host name of the certificate is not verified.
    CELERY_BROKER_USE_SSL = {"server_hostname": None}
CELERY_RESULT_BACKEND = None
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_DEFAULT_QUEUE = "notifications"
CELERY_TASK_QUEUES: dict[str, dict[str, str]] = {"notifications": {}, "deliver": {}}
CELERY_TASK_CREATE_MISSING_QUEUES = False
CELERY_TASK_ROUTES = {name: {"queue": "deliver"} for name in ("notifications.deliver_due", "notifications.watch")}
CELERY_TASK_PUBLISH_RETRY = False
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_ENABLE_PREFETCH_COUNT_REDUCTION = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_ENABLE_REMOTE_CONTROL = switch("CELERY_REMOTE_CONTROL", default=False)
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
CELERY_BROKER_CHANNEL_ERROR_RETRY = True
CELERY_BROKER_POOL_ACQUIRE_TIMEOUT = 2
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "visibility_timeout": 300,
    "unacked_restore_interval": 10,
    "unacked_restore_throttle": 1,
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "socket_keepalive": True,
    "health_check_interval": 15,
    "max_retries": 1,
    "interval_start": 0,
    "interval_step": 0.2,
    "interval_max": 0.5,
}
CELERY_TIMEZONE = "UTC"
CELERY_DB_REUSE_MAX = 10_000

# For the email channel, whose provider limits the time of each mail itself, and for alerts.
vars().update(mail_server("EMAIL_URL", "smtp://localhost:25"))
EMAIL_TIMEOUT = 10
SERVER_EMAIL = text("SERVER_EMAIL", "root@localhost")
DEFAULT_FROM_EMAIL = text("DEFAULT_FROM_EMAIL", "webmaster@localhost")

NOTIFICATIONS = service_settings(redis_address("NOTIFICATIONS_REDIS_URL", REDIS_URL), BRAND | TRIGGERS)
CELERY_BEAT_SCHEDULE = beat_schedule(NOTIFICATIONS)

CSRF_FAILURE_VIEW = "notifications.admin.kept_input.csrf_failure"
DEFAULT_EXCEPTION_REPORTER = "notifications.security.error_reports.Reporter"
DEFAULT_EXCEPTION_REPORTER_FILTER = "notifications.security.error_reports.Filter"

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"no_secrets": {"()": "notifications.security.log_redaction.NoSecrets"}},
    "formatters": {"json": {"()": "notifications.security.log_redaction.JsonFormatter"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "filters": ["no_secrets"]}},
    "root": {
        "handlers": ["stderr"],
        "level": word("LOG_LEVEL", "INFO", ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")),
    },
    "loggers": {
        # Its debug lines contain whole paths, and the path of a webhook is a secret; its warnings contain headers.
        "urllib3": {"level": "ERROR"},
        # Their info lines contain the arguments of every task, which are messages to users.
        "celery.worker.strategy": {"level": "WARNING"},
        "celery.app.trace": {"level": "WARNING"},
    },
}
