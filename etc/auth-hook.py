#!/usr/bin/env python3
"""An authorisation service for uringcast, to start from: who knows a stream's key may publish it, everybody plays.

    auth-hook.py 127.0.0.1:9100 keys.json          keys.json: {"live/stage": "a-key-that-is-long"}
    uringcast origin --auth-hook http://127.0.0.1:9100/

Each question is a POST of JSON: user, password, token, ip, action (publish or read), path (app/name), protocol and
query, as MediaMTX asks. 2xx says yes and 401 no. A publisher gives its key as app/name?token=KEY or ?pass=KEY.
"""
import hmac
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept

    def do_POST(self):
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204 if self.may(question) else 401)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def may(self, question):
        if question["action"] == "read":
            return True
        key = self.server.keys.get(question["path"], "")
        given = question["token"] or question["password"]
        return key != "" and hmac.compare_digest(given.encode(), key.encode())


if __name__ == "__main__":
    host, port = sys.argv[1].rsplit(":", 1)
    service = ThreadingHTTPServer((host, int(port)), Handler)
    with open(sys.argv[2]) as file:
        service.keys = json.load(file)
    print("listening on port", service.server_port, file=sys.stderr, flush=True)
    service.serve_forever()
