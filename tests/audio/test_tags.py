import io
import struct

import pytest

from cqt2img.audio.tags import skip_tags, tag_size

ID3V2 = b"ID3\4\0\0\0\0\1\2"  # 1 * 128 + 2 bytes behind the header
APE = b"APETAGEX" + struct.pack("<4I8x", 2000, 40, 1, 1 << 31)


@pytest.mark.parametrize(
    ("head", "size"),
    [
        (ID3V2, 10 + 130),
        (ID3V2[:5] + b"\x10" + ID3V2[6:], 10 + 130 + 10),  # with a footer
        (b"TAG" + bytes(13), 128),
        (APE[:16], 32 + 40),
        (b"ID3", 10),  # at the end of a file
        (b"RIFF" + bytes(12), 0),
        (b"", 0),
    ],
)
def test_the_size_of_a_tag_is_in_its_head(head, size):
    assert tag_size(head) == size


def test_all_tags_at_the_start_are_skipped(tmp_path):
    tags = ID3V2 + bytes(130) + APE + bytes(40) + b"TAG" + bytes(125)
    (tmp_path / "file").write_bytes(tags + b"fLaC")
    with io.FileIO(tmp_path / "file") as file:
        assert skip_tags(file) == (len(tags), b"fLaC".ljust(16, b"\0"))
