"""Debian's PostgreSQL on the loopback interface, in a folder of its own, for as long as a test needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path


def programs() -> Path | None:
    """Return the folder of the newest initdb and postgres; None where they, or the driver, are not installed."""
    if find_spec("psycopg") is None:
        return None
    on_path = [Path(found).resolve().parent for found in [shutil.which("initdb")] if found]
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name), reverse=True)
    return next((path for path in (*on_path, *debian) if (path / "postgres").exists()), None)


@contextmanager
def postgres() -> Iterator[str]:
    """Start a server and give its URL; it must not run as root, and does not."""
    binaries = programs()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="nas_kd_pg_"))
    who: dict[str, object] = {}
    if os.getuid() == 0:
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    port = free_port()
    common = {"cwd": folder, "capture_output": True, "text": True, **who}
    control, data, log = str(binaries / "pg_ctl"), folder / "data", folder / "log"
    try:
        make = [binaries / "initdb", "-D", data, "-U", "nas_kd", "-A", "trust", "-N", "-E", "UTF8", "--locale", "C"]
        subprocess.run([str(part) for part in make], check=True, timeout=60, **common)  # type: ignore[call-overload]
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        start = [control, "-D", str(data), "-w", "-t", "30", "-l", str(log), "-o", options, "start"]
        # not captured: the server would hold the pipe open
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(start, check=True, timeout=60, cwd=folder, **quiet, **who)  # type: ignore[call-overload]
        try:
            yield f"postgresql://nas_kd@127.0.0.1:{port}/postgres"
        finally:
            stop = [control, "-D", str(data), "-m", "immediate", "stop"]
            subprocess.run(stop, timeout=60, **common)  # type: ignore[call-overload]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
