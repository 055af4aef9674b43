"""Fetching a checkpoint's files by huggingface_hub, into its cache: HF_HOME, HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE
mean what they mean everywhere. While the command runs, a connection that breaks is taken up again where it broke; a
later one fetches again what was not whole, and only that.
"""

from __future__ import annotations

from huggingface_hub import hf_hub_download
from huggingface_hub.constants import ENDPOINT
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from referee.errors import WeightsError
from referee.hooks import Checkpoint, ZooFile
from referee.zoos import amount, verify


def fetch(checkpoint: Checkpoint) -> None:
    """Bring every file of a checkpoint here, and look at size and sha256 of each.

    Raises:
        WeightsError: naming the file, its repository and size, and what stands in the way.
    """
    repository, _, revision = checkpoint.source.partition("@")
    for file in checkpoint.files:
        if (checkpoint.folder / file.name).is_file():
            if not verify(checkpoint, file):
                continue
            _remove(checkpoint, file)
        _download(repository, revision, file)
        if fault := verify(checkpoint, file):
            _remove(checkpoint, file)  # a run looks at sizes alone, and would take it
            raise WeightsError(
                f"{file.name} of {repository} came from {ENDPOINT} and is not what was published: it {fault}. "
                "It was removed again. Try once more, or another HF_ENDPOINT."
            )


def _download(repository: str, revision: str, file: ZooFile) -> None:
    what = f"{file.name} of {repository} ({amount(file.size)})"
    try:
        hf_hub_download(repository, file.name, revision=revision)
    except GatedRepoError as error:
        raise WeightsError(
            f"{what} is gated: accept its licence at {ENDPOINT}/{repository}, then `hf auth login`, then try again."
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{what}: {ENDPOINT} has no such repository, or shows it to few. If you may see it: `hf auth login`."
        ) from error
    except LocalEntryNotFoundError as error:
        if isinstance(error.__cause__, OfflineModeIsEnabled):
            raise WeightsError(f"{what} is not here, and HF_HUB_OFFLINE forbids to fetch it: unset it.") from error
        cause = error.__cause__ or error
        if isinstance(cause, HfHubHTTPError):
            raise WeightsError(f"{what}: {ENDPOINT} answered {cause.response.status_code}. Try later.") from error
        raise WeightsError(
            f"{what}: {ENDPOINT} is not to be reached ({cause}). Look at the connection, HTTPS_PROXY and HF_ENDPOINT; "
            "without a network, copy the folder of another machine's hub cache here."
        ) from error
    except (RevisionNotFoundError, EntryNotFoundError) as error:
        raise WeightsError(f"{what} is not at {ENDPOINT} in the revision {revision}: the list is too old.") from error
    except Exception as error:  # the library's HTTP client, and so what it raises, changes with its version
        raise WeightsError(f"{what} could not be fetched: {type(error).__name__}: {error}. Try again.") from error


def _remove(checkpoint: Checkpoint, file: ZooFile) -> None:
    """A file of the cache, and what it links to."""
    path = checkpoint.folder / file.name
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)
