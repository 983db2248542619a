#!/usr/bin/env python3
"""Plays the platform: signed deliveries, each tried again until it is answered 200.

  post.py handshake URL            the platform's verification: status 0 if it is answered with its nonce
  post.py events URL COUNT LEDGER  that many events; LEDGER gets a line for each, once it is acknowledged
  post.py stream URL LEDGER        the same until SIGTERM; its last line says how many, and how long the longest took
"""

import http.client
import json
import pathlib
import secrets
import signal
import ssl
import sys
import time
import urllib.parse

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "deploy"))
from redeliver import envelope  # noqa: E402

# As the documentation prints them.
APP_ID, KEY = "1988692299", "the password of the push configuration"
TRY_AGAIN_FOR = 60


def post(url: str, event_info: str) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    more = {"context": ssl._create_unverified_context()} if parts.scheme == "https" else {}
    connection = kind(parts.netloc, timeout=10, **more)
    try:
        connection.request("POST", parts.path, envelope(APP_ID, event_info, KEY), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def until_acknowledged(url: str, event_info: str) -> float:
    began = time.monotonic()
    while True:
        try:
            status, said = post(url, event_info)
            if status == 200:
                return time.monotonic() - began
        except (OSError, http.client.HTTPException) as error:
            said = error
        if time.monotonic() - began > TRY_AGAIN_FOR:
            sys.exit(f"not acknowledged within {TRY_AGAIN_FOR} s: {said}")
        time.sleep(0.05)


def event(meeting: str) -> str:
    info = {"meetingID": meeting, "meetingUUID": meeting.zfill(32)}
    return json.dumps({"event": "meeting.join", "timestamp": time.time_ns() // 1_000_000, "payload": {"meetingInfo": info}})


def main() -> None:
    what, url = sys.argv[1:3]
    if what == "handshake":
        status, said = post(url, json.dumps({"event": "meeting.verify", "timestamp": time.time_ns() // 1_000_000}))
        assert status == 200 and json.loads(said)["event"] == "meeting.verify" and json.loads(said)["nonce"], (status, said)
        return
    ends = []
    signal.signal(signal.SIGTERM, lambda *_: ends.append(True))
    count, ledger = (int(sys.argv[3]), sys.argv[4]) if what == "events" else (sys.maxsize, sys.argv[3])
    begins, longest, done = 100_000_000 + secrets.randbelow(800_000_000), 0.0, 0
    with open(ledger, "a", encoding="utf-8") as file:
        while done < count and not ends:
            meeting = str(begins + done)
            longest = max(longest, until_acknowledged(url, event(meeting)))
            file.write(f"{meeting}\n")
            file.flush()
            done += 1
            time.sleep(0.01)
    print(f"{done} acknowledged, the longest after {longest:.2f} s")


main()
