"""Locates or downloads the weights of FID's Inception network. No torch here.

The weights are TorchScript, which is code as well as data. So a file is used only if it is byte for byte the one that
clean-fid downloads. Its sha256 can also be found in other sources, such as those of k-diffusion.
"""

from __future__ import annotations

import os
from pathlib import Path

from collapsebench.data.web_files import fetch, silence
from collapsebench.errors import DataError
from collapsebench.files import sha256_of
from collapsebench.paths import cache_dir

FILE = "inception-2015-12-05.pt"
URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{FILE}"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"
VARIABLE = "COLLAPSEBENCH_INCEPTION"

_HELP = f"To use a copy you have, pass --inception PATH or set {VARIABLE}=PATH, where PATH is {FILE} or its folder."


def inception_file(path: Path | None = None) -> Path:
    """Return the path of the checked Inception weights; downloads them (96 MB) once if no file is named.

    Args:
        path: the file, or the folder it is in. None: the path in ``$COLLAPSEBENCH_INCEPTION``, else the cached copy.

    Raises:
        DataError: the file does not exist, is not the one used for FID, or cannot be downloaded.
    """
    named = os.environ.get(VARIABLE)
    given = path or (Path(named).expanduser() if named else None)
    if given is None:
        file = cache_dir() / "inception" / FILE
        if not file.is_file():
            if reason := silence(URL):
                raise DataError(f"FID needs {FILE}, which is not at {file}; {URL} cannot be reached: {reason}. {_HELP}")
            fetch(URL, file, _check, "FID", _HELP)
    else:
        file = given / FILE if given.is_dir() else given
        if not file.is_file() or file.name != FILE:  # clean-fid looks for this file name
            raise DataError(f"{given} is neither a file called {FILE} nor a folder that holds one. {_HELP}")
    _check(file)
    return file


def _check(file: Path) -> None:
    found = sha256_of(file)
    if found != SHA256:
        raise DataError(
            f"{file} is not the Inception network of FID: sha256 {found[:16]}…, expected {SHA256[:16]}…. Delete it if "
            f"it is a damaged download of {URL}. {_HELP}"
        )
