"""One suite for every engine of the BlobStore port."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared_storage.adapters.blobs_fs import FileBlobs
from shared_storage.adapters.blobs_object_store import ObjectBlobs
from shared_storage.errors import BlobDiffers, BlobTooLarge, NoBlob
from shared_storage.ports import Blob, BlobStore
from tests.engines import Streams, let_go_of_sockets, need_engine

MOST = 3 << 20
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Streams]:
    need_engine()
    with Streams(tmp_path_factory.mktemp("engine")) as made:
        yield made
    let_go_of_sockets()


@pytest.fixture(params=["files", "object store"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStore:
    if request.param == "files":
        return FileBlobs(tmp_path / "blobs", most=MOST)
    streams: Streams = request.getfixturevalue("streams")

    async def made() -> ObjectBlobs:
        bucket = f"b{secrets.token_hex(4)}"
        return ObjectBlobs(streams.client, replicas=1, bucket=bucket, most=MOST)

    return streams.do(made())


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("size", [0, 1, 300_000, MOST])
def test_what_was_put_comes_back_in_pieces(store: BlobStore, size: int) -> None:
    data = os.urandom(size)
    pieces = [data[at : at + 100_000] for at in range(0, size, 100_000)]
    assert store.put(pieces, expected=digest(data)) == Blob(digest(data), size)
    found = list(store.get(digest(data)))
    assert b"".join(found) == data
    assert all(len(piece) <= 1 << 20 for piece in found)


def test_the_same_bytes_are_one_blob(store: BlobStore) -> None:
    one, other = store.put([b"ab", b"c"]), store.put([b"abc"])
    assert one == other
    more = store.put([b"d"])
    assert list(store.list()) == sorted([one, more])
    assert store.delete(one.digest)
    assert not store.delete(one.digest)
    assert list(store.list()) == [more]
    with pytest.raises(NoBlob):
        store.get(one.digest)
    assert store.put([b"abc"]) == one, "what was removed can come again"
    assert b"".join(store.get(one.digest)) == b"abc"


@pytest.mark.parametrize("name", ["", "x", "../../etc/passwd", "a" * 63, "A" * 64, digest(b"no")])
def test_unknown_names_are_no_blobs(store: BlobStore, name: str) -> None:
    with pytest.raises(NoBlob):
        store.get(name)


def test_nothing_is_kept_of_what_fails(store: BlobStore) -> None:
    def broken() -> Iterator[bytes]:
        yield b"half"
        raise ConnectionError("the sender went away")

    with pytest.raises(ConnectionError):
        store.put(broken())
    with pytest.raises(BlobDiffers, match="not 0000"):
        store.put([b"abc"], expected="0" * 64)
    with pytest.raises(BlobTooLarge):
        store.put(b"x" * (1 << 20) for _ in range(4))
    assert not list(store.list())


def test_a_file_that_was_damaged_is_told(tmp_path: Path) -> None:
    store = FileBlobs(tmp_path)
    blob = store.put([b"abc"])
    (path,) = tmp_path.glob("??/*")
    path.write_bytes(b"abd")
    with pytest.raises(BlobDiffers):
        list(store.get(blob.digest))


def test_drafts_of_a_crash_are_removed(tmp_path: Path) -> None:
    FileBlobs(tmp_path)
    (tmp_path / "x.new").write_bytes(b"half")
    assert not list(FileBlobs(tmp_path).list())
    assert not list(tmp_path.iterdir())
