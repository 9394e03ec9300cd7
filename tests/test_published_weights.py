"""Published weights are fetched once, whole and checked; from files, as there is no network here."""

import hashlib

import pytest

from tfi2i.config import UserError
from tfi2i.metrics import published
from tfi2i.metrics.features import FeatureNetwork
from tfi2i.metrics.protocols import make_protocol


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The user's cache folder, and a published file of 3 MiB and a byte for inception_2015."""
    content = bytes(3 * 2**20 + 1)
    (tmp_path / "weights.pth").write_bytes(content)
    file = published.File((tmp_path / "weights.pth").as_uri(), hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(published.FILES, "inception_2015", file)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tfi2i" / "weights"


def test_a_file_is_fetched_once(cache, tmp_path, capsys):
    assert published.cached("inception_2015") is None
    published.download("inception_2015")
    assert published.cached("inception_2015") == cache / "weights.pth"
    assert (cache / "weights.pth").read_bytes() == (tmp_path / "weights.pth").read_bytes()
    shown = capsys.readouterr().out
    assert "3/3 MiB of weights.pth" in shown and f"fetched {cache / 'weights.pth'}, SHA-256 as published" in shown
    (tmp_path / "weights.pth").unlink()
    published.download("inception_2015")
    # A package has the others' files, or Keras fetches them.
    published.download("efficientnet_lite0")
    assert [p.name for p in cache.iterdir()] == ["weights.pth"] and capsys.readouterr().out == ""


def test_another_file_is_not_kept(cache, tmp_path):
    with open(tmp_path / "weights.pth", "ab") as file:
        file.write(b"1")
    with pytest.raises(UserError, match="weights.pth gave another file .*: its SHA-256 is [0-9a-f]{64}, expected"):
        published.download("inception_2015")
    assert not list(cache.iterdir())


def test_a_file_that_cannot_be_fetched(cache, tmp_path):
    (tmp_path / "weights.pth").unlink()
    with pytest.raises(UserError, match="weights.pth cannot be fetched into .* give --network_weights=FILE"):
        published.download("inception_2015")
    assert not list(cache.iterdir())
    cache.rmdir()
    cache.touch()  # a cache that cannot be written
    with pytest.raises(UserError, match="weights.pth cannot be fetched into"):
        published.download("inception_2015")


def test_a_network_without_weights_says_where_they_are(cache):
    url = published.FILES["inception_2015"].url
    with pytest.raises(UserError, match=f"add --download_weights, or give --network_weights=FILE, the file {url}, or"):
        FeatureNetwork("inception_2015")
    with pytest.raises(UserError, match="the file https://download.pytorch.org/models/inception_v3_google-0cc3c7bd"):
        FeatureNetwork("inception_torchvision")


def test_weights_are_fetched_where_they_are_asked_for(cache, monkeypatch):
    networks = []
    monkeypatch.setattr("tfi2i.metrics.features.FeatureNetwork", lambda *given: networks.append(given) or FakeNetwork())
    asked = {"metrics": ["FID"], "network": "inception_2015"}
    for given in ({}, {"download_weights": True, "network_weights": "mine.pth"}, {"download_weights": False}):
        make_protocol(**asked | given)
        assert not cache.exists()
    make_protocol(**asked | {"metrics": ["l1"], "download_weights": True})  # needs no network
    assert not cache.exists() and len(networks) == 3
    make_protocol(**asked, download_weights=True)
    assert (cache / "weights.pth").is_file() and networks[-1] == ("inception_2015", None, "clean")


class FakeNetwork:
    standard = True
