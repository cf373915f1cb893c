#!/usr/bin/env bash
# Question: Another app sends a task whose JSON argument has a field named __type__, next to others. What does the worker do?
# Common guess: the task runs, and the field is a string like any other.
# True: kombu takes an object with __type__ and __value__ for a value of its own. It turns known types into Python values, and refuses to
#   decode the whole message for any other. The worker logs one critical line, acknowledges the message, and the task never runs.
#   An object with __type__ alone passes.
# Seen with celery 5.7.0 and kombu 5.7.0. Matters: one field of user data decides that a request is gone.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check celery==5.7.0 kombu==5.7.0
cat > finding.py <<'PY'
import logging
import sys
import threading

import celery
import kombu
from celery.contrib.testing.worker import start_worker

app = celery.Celery("finding", broker="memory://", set_as_current=True)
app.conf.update(worker_hijack_root_logger=False, task_ignore_result=True)
received, critical = [], []
arrived = threading.Event()


@app.task(name="take")
def take(payload):
    received.append(payload)
    if payload == "last":
        arrived.set()


class Critical(logging.Handler):
    def emit(self, record):
        if record.levelno >= logging.CRITICAL:
            critical.append(record.getMessage().split(":")[0])


consumer = logging.getLogger("celery.worker.consumer.consumer")
consumer.addHandler(Critical())
consumer.propagate = False  # without its traceback here
PAYLOADS = {
    "a type of somebody else": {"id": 1, "extra": {"__type__": "order", "__value__": 5}},
    "a type of kombu": {"id": 2, "extra": {"__type__": "decimal", "__value__": "1.5"}},
    "the name of the type alone": {"id": 3, "extra": {"__type__": "order"}},
}
print("celery", celery.__version__, "kombu", kombu.__version__)
with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
    for payload in [*PAYLOADS.values(), "last"]:
        app.send_task("take", args=[payload])
    arrived.wait(60)
by_id = {payload["id"]: payload["extra"] for payload in received if payload != "last"}
seen = {name: repr(by_id.get(payload["id"], "never ran")) for name, payload in PAYLOADS.items()}
seen["critical lines"] = len(critical)
EXPECTED = {
    "a type of somebody else": "'never ran'",
    "a type of kombu": "Decimal('1.5')",
    "the name of the type alone": "{'__type__': 'order'}",
    "critical lines": 1,
}
for name, value in seen.items():
    print(f"{name}: {value}" + ("" if EXPECTED[name] == value else f"   EXPECTED {EXPECTED[name]}"))
ok = seen == EXPECTED
print("as stated" if ok else "NOT as stated")
sys.exit(0 if ok else 1)
PY
venv/bin/python finding.py
