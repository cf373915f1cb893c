#!/usr/bin/env bash
# Question: A process has sent a request and is stopped (SIGSTOP, a frozen container, a suspended machine) for longer than its timeout.
#   The answer arrives meanwhile. What does the HTTP client return when the process goes on?
# Common guess: the answer, because it has been in the socket's buffer since long before anybody looks.
# True: requests and httpx's synchronous client return the answer. aiohttp, and httpx's asynchronous client on asyncio, report a timeout:
#   the event loop runs its timers before it reads what is ready, and a wait for events that a stop interrupted reports nothing at all
#   once its time has passed (Python retries it with the time that is left, PEP 475).
# Seen with aiohttp 3.14.5, httpx 0.28.1 and requests 2.34.2 on Python 3.11.7, Linux. Matters: a message that was accepted counts as failed,
#   and the retry sends it a second time. An own loop must look once more at what is ready before it lets a wait expire.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check aiohttp==3.14.5 httpx==0.28.1 requests==2.34.2
cat > client.py <<'PY'
import asyncio
import sys

kind, url = sys.argv[1:]
TIMEOUT = 2.0


async def with_aiohttp():
    import aiohttp

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT)) as session:
        async with session.post(url, json={}) as response:
            await response.read()
            return response.status


async def with_httpx():
    import httpx

    async with httpx.AsyncClient(timeout=TIMEOUT) as client:
        return (await client.post(url, json={})).status_code


def blocking(kind):
    if kind == "requests":
        import requests

        return requests.post(url, json={}, timeout=TIMEOUT).status_code
    import httpx

    return httpx.post(url, json={}, timeout=TIMEOUT).status_code


try:
    if kind in ("requests", "httpx"):
        print(blocking(kind))
    else:
        print(asyncio.run(with_aiohttp() if kind == "aiohttp" else with_httpx()))
except Exception as error:
    print("timeout" if "imeout" in type(error).__name__ else repr(error))
PY
cat > finding.py <<'PY'
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.metadata import version

EXPECTED = {"requests": "200", "httpx": "200", "aiohttp": "timeout", "httpx.AsyncClient": "timeout"}
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


def serve(listener, received, answer):
    connection, _ = listener.accept()
    with connection:
        data = b""
        while not data.endswith(b"{}"):
            data += connection.recv(4096)
        received.set()
        answer.wait(30)
        connection.sendall(ANSWER)
        time.sleep(10)


seen = {}
for kind in EXPECTED:
    listener = socket.create_server(("127.0.0.1", 0))
    received, answer = threading.Event(), threading.Event()
    threading.Thread(target=serve, args=(listener, received, answer), daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    client = subprocess.Popen([sys.executable, "client.py", kind, url], stdout=subprocess.PIPE, text=True)
    received.wait(30)
    time.sleep(0.3)  # the client waits for the answer now
    os.kill(client.pid, signal.SIGSTOP)
    answer.set()
    time.sleep(3)  # longer than its timeout
    os.kill(client.pid, signal.SIGCONT)
    seen[kind] = client.communicate(timeout=30)[0].strip()
    listener.close()
print(f"aiohttp {version('aiohttp')}, httpx {version('httpx')}, requests {version('requests')}")
for kind, result in seen.items():
    print(f"{kind}: {result}")
if seen != EXPECTED:
    sys.exit(f"expected {EXPECTED}")
print("as stated")
PY
venv/bin/python finding.py
