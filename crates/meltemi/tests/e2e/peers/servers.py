"""A small server that the tests' own program does not play.

  servers.py tls CERT KEY PORT    HTTP over TLS: answers every GET with `secure PATH`
"""
import http.server
import ssl
import sys


def tls(certificate, key, port):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            body = f"secure {self.path}".encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Server(http.server.ThreadingHTTPServer):
        def finish_request(self, request, address):
            # In the connection's own thread, so that a client that says nothing blocks nobody.
            super().finish_request(context.wrap_socket(request, server_side=True), address)

        def handle_error(self, *_):
            pass

    Server(("0.0.0.0", int(port)), Handler).serve_forever()


{"tls": tls}[sys.argv[1]](*sys.argv[2:])
