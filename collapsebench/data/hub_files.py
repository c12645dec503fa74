"""Single files of the Hugging Face hub: from the cache, downloaded, or one clear error within seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from collapsebench.data.web_files import silence
from collapsebench.errors import DataError

_PATIENCE = 3.0  # seconds to wait for the hub's response


def hub_silence() -> str | None:
    """The reason why the hub cannot be reached; None if it can."""
    from huggingface_hub import constants

    return "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else silence(constants.ENDPOINT)


def hub_file(repository: str, name: str, revision: str, kind: Literal["model", "dataset"], advice: str) -> Path:
    """A file of a repository at a revision.

    Args:
        advice: end of the error message: what else the user can do.

    Raises:
        DataError: a licence must be accepted, the file does not exist, or the hub cannot be reached and the file is not
            in the cache.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import GatedRepoError, RemoteEntryNotFoundError, RepositoryNotFoundError

    place = f"{kind} {repository}, revision {revision[:12]}"
    try:
        if (cached := _cached(repository, name, revision, kind)) is not None:
            return cached
        if reason := hub_silence():
            raise ConnectionError(reason)
        # Ask once, without the retries of a download, so that offline users do not wait for them.
        url = hub.hf_hub_url(repository, name, revision=revision, repo_type=kind)
        hub.get_hf_file_metadata(url, timeout=_PATIENCE)
        return Path(hub.hf_hub_download(repository, name, revision=revision, repo_type=kind))
    except GatedRepoError as error:
        page = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repository}"
        raise DataError(
            f"{place} is gated: accept its licence at {page} and log in with `hf auth login`, {advice}."
        ) from error
    except (RemoteEntryNotFoundError, RepositoryNotFoundError) as error:
        raise DataError(f"{place} has no {name}, or needs a login (`hf auth login`), {advice}.") from error
    except Exception as error:  # the client raises many types: no network, proxies, certificates, a full disk
        raise DataError(
            f"{place} is needed ({name}), is not in the local cache and cannot be downloaded ({_told(error)}): check "
            f"the network, {advice}."
        ) from error


def has_any(repository: str, names: tuple[str, ...], revision: str) -> bool:
    """Whether one of these files of a model is in the cache or can be requested from the hub."""
    return any(_cached(repository, name, revision, "model") for name in names) or hub_silence() is None


def _cached(repository: str, name: str, revision: str, kind: Literal["model", "dataset"]) -> Path | None:
    import huggingface_hub as hub

    found = hub.try_to_load_from_cache(repository, name, revision=revision, repo_type=kind)
    return Path(found) if isinstance(found, str) else None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
