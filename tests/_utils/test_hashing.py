import hashlib

import numpy as np
import pytest

from cqt2img._utils.hashing import hash_bytes, hash_file

# NIST's example for the message "abc"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_digest_is_sha256_of_the_joined_parts():
    assert hash_bytes([b"abc"]) == ABC
    assert hash_bytes([b"a", memoryview(b"b"), np.frombuffer(b"c", np.uint8)]) == ABC
    assert hash_bytes([]) == hashlib.sha256().hexdigest()


def test_a_file_has_the_digest_of_its_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    assert hash_file(path) == hash_file(str(path)) == ABC


def test_an_array_counts_as_its_bytes_whatever_its_shape():
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert hash_bytes([array]) == hash_bytes([array.tobytes()])
    with pytest.raises(ValueError, match="contiguous"):
        hash_bytes([array.T])
