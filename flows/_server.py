"""A Prefect server for one run, on the loopback interface.

Prefect's own temporary server makes the run import the whole server a second time,
asks no password, and stays for ever when the run is killed. This one starts while
the run imports what it needs, asks for a password of its own, and ends with the run
however that ends: it reads from a pipe that the system closes with the run.
"""

from __future__ import annotations

import atexit
import os
import secrets
import socket
import subprocess
import sys
import threading
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

START_S = 120
"""Seconds to wait for the server: its first start makes the database, on slow disks too."""
STOP_S = 10
"""Seconds that a server has for its last writes."""
_SERVER_ONLY = {
    "PREFECT_SERVER_UI_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "CRITICAL",
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
    "PREFECT__SERVER_EPHEMERAL": "1",  # no scheduler and no worker services
    "PREFECT__SERVER_FINAL": "1",
}


class ServerError(Exception):
    """The server did not start."""


class Server:
    """A server that lives as long as this process at most.

    Attributes:
        url: Of its API.
        secret: User and password for it.
    """

    def __init__(self, home: Path) -> None:
        """Starts it; call before Prefect is imported, and `wait` before a flow runs.

        Args:
            home: Folder of Prefect's state.
        """
        self.secret = f"sekisho:{secrets.token_urlsafe(32)}"
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self._port: int = listener.getsockname()[1]
            self.url = f"http://127.0.0.1:{self._port}/api"
            self._process = self._spawn(listener.fileno(), home / "server.log")
        # Registered before Prefect's own, so run after it: Prefect says its last words first.
        atexit.register(self.stop)

    def _spawn(self, descriptor: int, log: Path) -> subprocess.Popen[bytes]:
        with log.open("wb") as errors:
            return subprocess.Popen(
                # -P: the modules of this folder must not stand in for others.
                [sys.executable, "-P", __file__, str(descriptor)],
                env=os.environ | _SERVER_ONLY | {"PREFECT_SERVER_API_AUTH_STRING": self.secret},
                pass_fds=[descriptor],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for the run, which then tells the server
            )

    def wait(self) -> None:
        """Waits until the server answers.

        Raises:
            ServerError: It ended, or did not answer in time.
        """
        # The socket listens already: one question waits until the server can answer it.
        connection = HTTPConnection("127.0.0.1", self._port, timeout=START_S)
        try:
            connection.request("GET", "/api/health")
            status = connection.getresponse().status
        except (OSError, HTTPException):
            status = 0
        finally:
            connection.close()
        if status != 200:
            self.stop()
            raise ServerError(
                "Prefect's server did not start, see server.log beside its database; "
                "`sekisho run` does the same without it."
            )

    def stop(self) -> None:
        """Stops the server once it has written what it was told."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _serve(descriptor: int) -> None:
    import uvicorn

    config = uvicorn.Config(
        "prefect.server.api.server:create_app",
        factory=True,
        lifespan="on",
        log_level="critical",
        access_log=False,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()
        server.should_exit = True
        time.sleep(STOP_S)  # not heard while it starts or hangs
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[socket.socket(fileno=descriptor)])
    os._exit(0)  # all is written; to unload the interpreter takes a second or more


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
