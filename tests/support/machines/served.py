"""A web server on loopback that drops connections, refuses and ignores ranges on request."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server, expected = self.server, self.headers.get("Range")
        server.asked.append(expected)
        if server.errors:
            self.send_response(server.errors.pop(0))
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        start = int(expected.removeprefix("bytes=").rstrip("-")) if expected and server.ranges else 0
        if start >= len(server.content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.content)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.send_response(206 if expected and server.ranges else 200)
        self.send_header("Content-Length", str(len(server.content) - start))
        if expected and server.ranges:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        stop = start + server.drops.pop(0) if server.drops else len(server.content)
        self.wfile.write(server.content[start:stop])
        self.close_connection = stop < len(server.content)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving(content: bytes) -> Iterator[ThreadingHTTPServer]:
    """Serve; each of `drops` is the bytes after which an answer breaks off, `asked` records requested ranges."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.content, http.ranges, http.drops, http.errors, http.asked = content, True, [], [], []
    http.url = f"http://127.0.0.1:{http.server_port}/videos.zip"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield http
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
