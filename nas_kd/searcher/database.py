"""The URL of a database that workers of many machines share."""

from __future__ import annotations

import re
from urllib.parse import unquote_plus, urlsplit

from nas_kd.errors import SettingError

SECRET = re.compile("passw|pwd|secret", re.IGNORECASE)  # in names of a driver's arguments; passfile is a path


def check_database(name: str, url: str | None) -> None:
    """Check the URL of a database without connecting.

    Raises:
        SettingError: it is not the URL of a database that several processes can share.
    """
    if url is None:
        return
    expected = "postgresql://USER@HOST/DATABASE, or null for the run's journal"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise SettingError(name, "a URL that cannot be read", expected, "check the host and the port") from error
    known = parts.scheme.partition("+")[0] in ("postgresql", "postgres", "mysql", "mariadb")
    if not known or len(parts.path) < 2 or port == 0:
        raise SettingError(name, without_password(url), expected, "omit it for workers on one machine")


def without_password(url: str) -> str:
    """Return a URL without its passwords, the user's and those of the query, which must not be in files or messages.

    Args:
        url: the URL, as SQLAlchemy reads it: a password may hold ``/``, ``?`` and ``#``, and there are no fragments.
    """
    place, mark, query = re.sub(r"^([^:]*://[^:/]*):[^@]*@([^/?]*@)?", r"\1@", url).partition("?")
    shown = [part for part in query.split("&") if not SECRET.search(unquote_plus(part.partition("=")[0]))]
    return place + (mark if shown else "") + "&".join(shown)
