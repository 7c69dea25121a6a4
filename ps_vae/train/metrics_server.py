"""Where Prometheus finds a run's metrics: http://127.0.0.1:PORT/metrics.

The server's loop hands over a state, a second old at most, that nobody changes any more; threads of this file answer
from it. So a scrape waits for nobody, and nobody waits for a scrape.
"""

import socket
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from socketserver import TCPServer
from typing import Any

from ps_vae.errors import Unreachable, UsageError

__all__ = ["MetricsServer"]

_HERE = "127.0.0.1"
_SHOWN_SECONDS = 1.0
# A client that is slower than this, or one of more than so many at once, is sent away.
_SLOW_SECONDS = 5.0
_AT_ONCE = 8
_POLL_SECONDS = 0.1


class MetricsServer:
    """Listens at `address`, PORT or HOST:PORT, from now on until it is closed.

    url  where it is reached

    Raises UsageError where the address is none, or its library is not installed, Unreachable where it cannot listen.
    """

    def __init__(self, address: str) -> None:
        if find_spec("prometheus_client") is None:
            raise UsageError("--metrics-port needs prometheus-client: pip install 'ps_vae[metrics]'")
        host, port = _host_and_port(address)
        self._shown: tuple[float, Mapping[str, Any]] | None = None
        self._server = _listen(host, port, self._text)
        name = f"[{host}]" if ":" in host else host
        self.url = f"http://{name}:{self._server.server_address[1]}/metrics"
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_SECONDS,), name="metrics", daemon=True
        )
        self._thread.start()

    @property
    def is_due(self) -> bool:
        """Whether what is shown is so old that it should be shown anew."""
        return self._shown is None or time.monotonic() - self._shown[0] >= _SHOWN_SECONDS

    def show(self, state: Mapping[str, Any]) -> None:
        """Answer with this state, which nobody changes any more."""
        self._shown = (time.monotonic(), state)

    def close(self) -> None:
        """Let go of the address, within a moment."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _text(self) -> bytes | None:
        """What is shown; None while there is nothing."""
        from ps_vae.train.metrics import exposition

        shown = self._shown
        return None if shown is None else exposition(shown[1], time.monotonic() - shown[0])


class _Server(ThreadingHTTPServer):
    """A thread for each of a few requests at once."""

    daemon_threads = True
    # Scrapes that are under way are not waited for.
    block_on_close = False
    # A crowd that waits to be sent away must not keep a scrape from the door.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], text: Callable[[], bytes | None]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.text = text
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        super().__init__(address, _Request)

    def server_bind(self) -> None:
        # Not HTTPServer's, which asks the name service who we are, and waits for it.
        TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            self.finish_request(request, client_address)
        except OSError:
            self.handle_error(request, client_address)
        finally:
            # Before it is closed: whoever sees that may come again.
            self._free.release()
            self.shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is no news."""


class _Request(BaseHTTPRequestHandler):
    server: _Server
    timeout = _SLOW_SECONDS

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "metrics are at /metrics")
            return
        try:
            text = self.server.text()
        except Exception as error:
            # The run is well; who asked is told.
            self.send_error(500, "a fault in ps_vae itself", repr(error))
            return
        if text is None:
            self.send_error(503, "the run has not begun")
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """A scrape is no news."""


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) < 1 << 16):
        raise UsageError(f"--metrics-port {address}: give a port, such as 9400, or HOST:PORT")
    return host.removeprefix("[").removesuffix("]") or _HERE, int(port)


def _listen(host: str, port: int, text: Callable[[], bytes | None]) -> _Server:
    try:
        return _Server((host, port), text)
    except OSError as error:
        where = f"{host}:{port}"
        raise Unreachable(f"cannot serve metrics at {where}: {error.strerror}; give another --metrics-port") from None
