#!/usr/bin/env python3
"""Delivers the events of one Convoke's SQLite log to another Convoke, signed anew, in the order of the log.

For what a stand-in kept while the database was away: see "Store elsewhere" in docs/operate/runbook.md. The event's id comes from its
content, so what the other one knows already is recognised, and this can be run again at any time. Status 0 only if
every event was answered 200. Needs nothing but Python 3.
"""

import argparse
import hashlib
import hmac
import http.client
import secrets
import sqlite3
import sys
import time
import urllib.parse


def envelope(app_id: str, event_info: str, key: str) -> bytes:
    timestamp, nonce = str(time.time_ns() // 1_000_000), secrets.token_hex(8)
    signed = (app_id + timestamp + nonce + event_info).encode()
    signature = hmac.new(key.encode(), signed, hashlib.sha256).hexdigest()
    # By hand: eventInfo goes over as it was kept, byte for byte.
    return (
        f'{{"appID":"{app_id}","timestamp":{timestamp},"nonce":"{nonce}","signature":"{signature}",'
        f'"eventInfo":{event_info}}}'
    ).encode()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", help="the stand-in's SQLite file")
    parser.add_argument("url", help="where the other Convoke takes events")
    parser.add_argument("--key-file", required=True, help="a key of the subscriber; the first line counts")
    parser.add_argument("--subscriber", help="only this appID; needed if the file holds several")
    arguments = parser.parse_args()

    with open(arguments.key_file, encoding="utf-8") as file:
        key = file.readline().rstrip("\r\n")
    log = sqlite3.connect(f"file:{urllib.parse.quote(arguments.database)}?mode=ro", uri=True)
    known = [row[0] for row in log.execute("SELECT DISTINCT subscriber_id FROM events")]
    wanted = [arguments.subscriber] if arguments.subscriber else known
    if len(wanted) > 1:
        parser.error(f"several subscribers, each with a key of its own: --subscriber one of {', '.join(known)}")

    url = urllib.parse.urlsplit(arguments.url)
    kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
    connection = kind(url.netloc, timeout=30)
    delivered = failed = 0
    query = "SELECT seq, subscriber_id, event_info FROM events WHERE event_info IS NOT NULL AND subscriber_id = ? ORDER BY seq"
    for subscriber in wanted:
        for seq, app_id, event_info in log.execute(query, (subscriber,)):
            connection.request("POST", url.path, envelope(app_id, event_info, key), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                delivered += 1
            else:
                failed += 1
                print(f"seq {seq}: {answer.status} {answer.reason}", file=sys.stderr)
    print(f"{delivered} delivered, {failed} refused")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
