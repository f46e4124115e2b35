"""HTTP servers on loopback."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path


@contextlib.contextmanager
def serving(handler) -> Iterator[http.server.ThreadingHTTPServer]:
    """Run a server that answers with `handler`; its address is the attribute `url`."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def files_of(folder: Path):
    """Handler that serves the files of a folder."""
    return partial(_Quiet, directory=folder)


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass
