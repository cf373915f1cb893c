# The gate without the tests; run by `make check`, which sets DATABASE_URL and REDIS_URL.
PATH="$PWD/.venv/bin:$PATH"
export SECRET_KEY=production-like-0123456789-abcdefghijklmnopqrstuvwxyz-ABCDEFGHIJ
export NOTIFICATIONS_ENCRYPTION_KEYS=cHJvZHVjdGlvbi1saWtlLTAxMjM0NTY3ODktYWJjZGU=
export ALLOWED_HOSTS=notifications.example.com

ruff format --check .
ruff check .
sqlfluff lint notifications dev/faults
mypy
lint-imports
python manage.py makemigrations --check --dry-run
python manage.py check --deploy --fail-level WARNING
echo "make check: all good"
