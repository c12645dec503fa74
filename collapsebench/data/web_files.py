"""Files from the web: checks that a host responds, and downloads files completely and verified, or not at all."""

from __future__ import annotations

import functools
import http.client
import os
import shutil
import ssl
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from collapsebench.errors import DataError

_PATIENCE = 3.0  # seconds; a name look-up has no timeout of its own, so the whole check runs in another thread
_TIMEOUT = 5.0  # seconds without a response during a download


def silence(url: str) -> str | None:
    """The reason why the host of an address does not respond; None if it does. Checked once per process and host."""
    place = urlsplit(url)
    return _silence(f"{place.scheme}://{place.netloc}")


@functools.cache
def _silence(host: str) -> str | None:
    found: list[str | None] = [f"no answer within {_PATIENCE:.0f} seconds"]

    def ask() -> None:
        found[:] = [_refusal(host)]

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    return found[0]


def _refusal(host: str) -> str | None:
    try:
        urlopen(Request(host, method="HEAD"), timeout=_PATIENCE).close()
    except HTTPError:
        return None  # it responds
    except URLError as error:
        return None if isinstance(error.reason, ssl.SSLError) else str(error.reason)  # others trust other certificates
    except (OSError, http.client.HTTPException) as error:
        return str(error)
    return None


def fetch(url: str, target: Path, check: Callable[[Path], None], purpose: str, advice: str) -> None:
    """Download a file; the target appears complete and checked, or not at all.

    Args:
        check: raises if the file is not the expected one.
        purpose, advice: beginning and end of the error message if the download fails.

    Raises:
        DataError: there is no network, or the connection timed out, was refused or was cut off.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".download-") as folder:
        partial = Path(folder) / target.name
        try:
            with urlopen(url, timeout=_TIMEOUT) as response, partial.open("wb") as file:
                shutil.copyfileobj(response, file)
        except (OSError, http.client.HTTPException) as error:
            raise DataError(
                f"{purpose} needs {target.name}, which is not at {target} and could not be downloaded from {url}: "
                f"{error}. {advice}"
            ) from error
        check(partial)
        os.replace(partial, target)
