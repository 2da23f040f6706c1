"""However its header is cut up, an image is known or refused after a bounded number of reads."""

import pytest

from saq_qat_runtime.bounded_reads import HEADER_READS, BoundedReads
from saq_qat_runtime.errors import InputError
from saq_qat_runtime.preprocess import open_undecoded


def test_a_header_may_be_read_so_often_and_no_oftener() -> None:
    file = BoundedReads(bytes(2 * HEADER_READS))
    for _ in range(HEADER_READS):
        file.read(1)
    with pytest.raises(InputError, match=r"header of the image is in too many pieces.*Save"):
        file.read(1)


def test_a_header_that_names_the_same_bytes_again_and_again_is_refused() -> None:
    content = bytes(3 << 20)
    file = BoundedReads(content)
    with pytest.raises(InputError, match="header"):
        for _ in range(4):
            file.seek(0)
            assert file.read() == content


def test_pixels_are_read_as_often_as_allowed() -> None:
    file = BoundedReads(bytes(3 * HEADER_READS))
    file.allow(None)
    for _ in range(2 * HEADER_READS):
        file.read(1)
    file.allow(1)
    file.read(1)
    with pytest.raises(InputError, match="file of the image"):
        file.read(1)


@pytest.mark.parametrize(
    "content",
    [
        b"P6\n" + b"#\n" * 20_000 + b"8 8\n255\n" + bytes(192),
        b"\xff\xd8" + b"\xff\xe5\x00\x02" * 20_000,
        b"GIF89a\4\0\4\0\0\0\0!\xfe" + b"\1x" * 20_000,
    ],
    ids=["comments of PPM", "segments of JPEG", "blocks of GIF"],
)
def test_an_image_whose_header_has_no_end_is_refused(content: bytes) -> None:
    with pytest.raises(InputError, match="too many pieces"):
        open_undecoded(content)
