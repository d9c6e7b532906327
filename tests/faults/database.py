"""Debian's PostgreSQL on the loopback interface, in a folder of its own, for as long as a test needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sqlalchemy import text

from nas_kd.searcher.lease_table import connected


def programs() -> Path | None:
    """Return the folder of the newest initdb and postgres; None where they, or the driver, are not installed."""
    if find_spec("psycopg") is None:
        return None
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((path for path in (*on_path, *debian) if (path / "postgres").exists()), None)


# ends the server and its folder when its input ends: with the test, or with a test process that was killed
GUARD = 'trap "" INT TERM HUP; read -r line; "$1" -D "$2/data" -m immediate stop; rm -rf "$2"'


class Server:
    """A server that can be stopped and started again on the same data.

    Args:
        binaries: folder of its programs.
        folder: holds its data.
        who: the user that it runs as, as arguments of ``subprocess``.
    """

    def __init__(self, binaries: Path, folder: Path, who: Mapping[str, Any]) -> None:
        self.binaries, self.folder, self.port = binaries, folder, free_port()
        # not captured: the server would hold the pipe open
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._settings: dict[str, Any] = {"timeout": 60, "cwd": folder, **quiet, **who}

    def url(self, user: str = "nas_kd", base: str = "postgres") -> str:
        """Return SQLAlchemy's URL of one of its databases."""
        return f"postgresql://{user}@127.0.0.1:{self.port}/{base}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={self.folder} -c fsync=off"
        self._control("-w", "-t", "30", "-l", str(self.folder / "log"), "-o", options, "start")

    def stop(self) -> None:
        """Stop it as a power cut does."""
        self._control("-m", "immediate", "stop")

    def execute(self, statement: str, base: str = "postgres") -> None:
        """Run a statement as its superuser."""
        engine = connected(self.url(base=base))
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.execute(text(statement))
        engine.dispose()

    def _control(self, *arguments: str) -> None:
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), *arguments]
        subprocess.run(command, check=True, **self._settings)


@contextmanager
def server() -> Iterator[Server]:
    """Start a server, which must not run as root and does not; it ends with this process at the latest."""
    binaries = programs()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="nas_kd_pg_"))
    who: dict[str, Any] = {}
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    command = ["sh", "-c", GUARD, "guard", str(binaries / "pg_ctl"), str(folder)]
    guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True, cwd="/", **quiet, **who)
    assert guard.stdin is not None
    try:
        make = ["-D", folder / "data", "-U", "nas_kd", "-A", "trust", "-N", "-E", "UTF8", "--locale", "C"]
        command = [str(part) for part in (binaries / "initdb", *make)]
        subprocess.run(command, check=True, timeout=60, cwd=folder, capture_output=True, **who)
        found = Server(binaries, folder, who)
        found.start()
        yield found
    finally:
        guard.stdin.close()
        guard.wait(timeout=60)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server and give its URL."""
    with server() as found:
        yield found.url()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
