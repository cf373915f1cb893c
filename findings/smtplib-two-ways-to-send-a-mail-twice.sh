#!/usr/bin/env bash
# Question: A mail server answers the message with 251, or with text without a number. What does smtplib's sendmail do? And how does one
#   tell a refused DATA command from a connection that broke after the message?
# Common guess: every 2yz reply means that the mail was accepted (RFC 5321, section 4.2.1); `except OSError` catches broken connections.
# True: only 250 counts. After 251 or 252 SMTPDataError is raised although the server has the mail, so callers that retry send it again. A
#   reply without a number has the code -1. Every SMTPException is an OSError, so `except OSError` around DATA catches refusals too.
# Seen with Python 3.11.7's smtplib and aiosmtpd 1.4.6 as the server. Matters: a mail that was accepted is sent again, and a mail that was
#   refused before its text was sent looks as if it may have arrived.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check aiosmtpd==1.4.6
cat > finding.py <<'PY'
import platform
import smtplib
import socket
import sys

import aiosmtpd
from aiosmtpd.controller import Controller

accepted = []


class Server:
    reply = "250 OK"

    async def handle_DATA(self, server, session, envelope):
        accepted.append(self.reply)
        return self.reply


with socket.create_server(("127.0.0.1", 0)) as reserved:
    port = reserved.getsockname()[1]
server = Server()
controller = Controller(server, hostname="127.0.0.1", port=port)
controller.start()
print("Python", platform.python_version(), "aiosmtpd", aiosmtpd.__version__)


def send(reply):
    server.reply = reply
    with smtplib.SMTP("127.0.0.1", port, timeout=5, local_hostname="client") as client:
        try:
            client.sendmail("a@example.com", ["b@example.com"], "Subject: x\r\n\r\nx\r\n")
        except smtplib.SMTPDataError as error:
            return f"SMTPDataError {error.smtp_code}"
    return "accepted"


seen = {reply: send(reply) for reply in ("250 OK", "251 forwarded", "252 queued", "fine, thanks")}
seen["mails that the server has"] = len(accepted)
seen["SMTPDataError is an OSError"] = issubclass(smtplib.SMTPDataError, OSError)
controller.stop()
EXPECTED = {
    "250 OK": "accepted",
    "251 forwarded": "SMTPDataError 251",
    "252 queued": "SMTPDataError 252",
    "fine, thanks": "SMTPDataError -1",
    "mails that the server has": 4,
    "SMTPDataError is an OSError": True,
}
for name, value in seen.items():
    print(f"{name}: {value}" + ("" if EXPECTED[name] == value else f"   EXPECTED {EXPECTED[name]}"))
ok = seen == EXPECTED
print("as stated" if ok else "NOT as stated")
sys.exit(0 if ok else 1)
PY
venv/bin/python finding.py
