#!/usr/bin/env python3
"""Stands in for `convoke serve` in the tests of the test support: announces two listeners, answers, ends on SIGTERM."""
import http.server, json, os, signal, sys, threading

if sys.argv[1:] == ["print"]:
    print(os.environ["CONVOKE_DATABASE_URL"])
    sys.exit()


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    pages = {"/readyz": b"", "/json": b'{"ok": true}', "/metrics": b'deliveries_total{e="a",outcome="stored"} 5\n'}

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if "X-Request-ID" in self.headers:
            self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.answer(self.pages[self.path])

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, *_):
        pass


open("convoke.db", "a").close()
print("started", flush=True)
print("a line that is not JSON", file=sys.stderr)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
for listener, variable in (("events", "CONVOKE_LISTEN"), ("admin", "CONVOKE_ADMIN_LISTEN")):
    host, port = os.environ[variable].split(":")
    server = http.server.ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    line = {"message": "listening", "listener": listener, "address": f"{host}:{port}"}
    # Both layouts that tracing's JSON has.
    line = line if listener == "admin" else {"level": "INFO", "fields": line}
    print(json.dumps(line, separators=(",", ":")), file=sys.stderr, flush=True)
signal.pause()
