import errno

import pytest
from safetensors import SafetensorError

from cqt2img._utils.files import disk_full_error, write_atomic
from cqt2img.errors import InputError
from tests.conftest import raises_exactly

MESSAGE = "fit: the disk must have room, got a full one at {!r}. Free some space and run again; what is finished stays."


@pytest.mark.parametrize(
    "err",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError(
            "Error while serializing: I/O error: No space left on device (os error 28)"
        ),
        RuntimeError(
            "[enforce fail at inline_container.cc:671] . unexpected pos 128 vs 22"
        ),
    ],
)
def test_every_writer_of_ours_says_it_in_its_own_words(tmp_path, err):
    with (
        raises_exactly(InputError, MESSAGE.format(str(tmp_path))),
        disk_full_error("fit", tmp_path),
    ):
        raise err


@pytest.mark.parametrize(
    "err", [OSError(errno.EIO, "bad disk"), RuntimeError("shapes"), ValueError("no")]
)
def test_other_errors_pass(tmp_path, err):
    with pytest.raises(type(err)) as caught, disk_full_error("fit", tmp_path):
        raise err
    assert caught.value is err


def test_what_is_half_written_is_not_there(tmp_path):
    (tmp_path / "table").write_text("before")

    def write(part):
        part.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomic(tmp_path / "table", write)
    assert [path.name for path in tmp_path.iterdir()] == ["table"]
    assert (tmp_path / "table").read_text() == "before"
