"""Published weights of feature networks that no package installs: where they are, and how they are fetched."""

import dataclasses
import hashlib
import http.client
import urllib.request

from tfi2i import files
from tfi2i.config import UserError
from tfi2i.progress import Progress


@dataclasses.dataclass(frozen=True)
class File:
    """A published file.

    Attributes:
        url: its address, which ends in its name.
        sha256: hexadecimal.
    """

    url: str
    sha256: str

    @property
    def name(self):
        """The file's name."""
        return self.url.rpartition("/")[2]


# Feature network → its file. The first one is pytorch-fid's and has the same bytes as torch-fidelity's.
FILES = {
    "inception_2015": File(
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
        "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    ),
    "inception_torchvision": File(
        "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth",
        "0cc3c7bd75056d25e46cba549dc184522069b81e9787eff6df84f397bd52a5ef",
    ),
}


def cached(network):
    """Path of a network's published file if `download` has fetched it before, else None."""
    path = network in FILES and files.user_cache("weights") / FILES[network].name
    return path if path and path.is_file() else None


def download(network):
    """Fetches a network's published file into the user's cache folder, unless it is there or there is none to fetch.

    Args:
        network: one of `protocols.NETWORKS`. What a package installs, or Keras fetches itself, is left to them.

    Raises:
        UserError: it cannot be fetched or written, or is not the published file.
    """
    if network not in FILES or cached(network):
        return
    file = FILES[network]
    path = files.user_cache("weights") / file.name
    try:
        with files.whole(path) as partial:
            found = _fetch(file, partial)
            if found != file.sha256:
                raise UserError(
                    f"{file.url} gave another file than the published one: its SHA-256 is {found}, expected "
                    f"{file.sha256}. Try again, or get the file elsewhere and give --network_weights=FILE"
                )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{file.url} cannot be fetched into {path.parent} ({reason}): get the file where there is a network, and "
            "give --network_weights=FILE"
        ) from error
    print(f"fetched {path}, SHA-256 as published")


def _fetch(file, path):
    """Writes the file to `path`; returns its SHA-256."""
    digest, done = hashlib.sha256(), 0
    with urllib.request.urlopen(file.url, timeout=30) as answer, open(path, "wb") as copy:
        size = int(answer.headers.get("Content-Length") or 0)
        progress = Progress(size // 2**20, f"MiB of {file.name}", active=size > 0)
        while chunk := answer.read(2**20):
            copy.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            progress.update(done // 2**20)
        progress.close()
    return digest.hexdigest()
