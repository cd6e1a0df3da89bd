# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A buyer with Python's own HTTP clients: steps.py http.client|urllib BASE keep|close < steps.json

Run inside the crowd's namespace. Steps: [[method, target, body or null], …]. Prints what each answer was, as the client library understood
it: [{"status", "headers", "body"}, …], and on how many connections.
"""
import http.client
import json
import sys
import urllib.error
import urllib.parse
import urllib.request

TIMEOUT_S = 20


class Counting(http.client.HTTPConnection):
    connections = 0

    def connect(self):
        Counting.connections += 1
        super().connect()


def by_http_client(base, keep, steps):
    host = urllib.parse.urlsplit(base)
    connection = Counting(host.hostname, host.port, timeout=TIMEOUT_S)
    for method, target, body in steps:
        headers = {} if keep else {"Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection.request(method, target, body=body, headers=headers)
        response = connection.getresponse()
        yield response.status, response.headers, response.read()


def by_urllib(base, keep, steps):
    del keep  # it always closes
    for method, target, body in steps:
        request = urllib.request.Request(base + target, method=method, data=body.encode() if body is not None else None,
                                         headers={"Content-Type": "application/json"} if body is not None else {})
        Counting.connections += 1
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
                yield response.status, response.headers, response.read()
        except urllib.error.HTTPError as error:
            yield error.code, error.headers, error.read()


def main():
    client, base, keep = sys.argv[1:]
    run = {"http.client": by_http_client, "urllib": by_urllib}[client]
    answers = [{"status": status, "headers": {name.lower(): value for name, value in headers.items()}, "body": body.decode()}
               for status, headers, body in run(base, keep == "keep", json.load(sys.stdin))]
    print(json.dumps({"answers": answers, "connections": Counting.connections}))


main()
