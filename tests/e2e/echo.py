# SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause
"""A server that has nothing to do with the sale, as sshd has not: echoes lines on the port given, both families."""
import socketserver
import sys


class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.wfile.write(line)


class Server(socketserver.ThreadingTCPServer):
    address_family = 10
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


Server(("::", int(sys.argv[1])), Echo).serve_forever()
