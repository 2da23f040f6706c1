"""Reports on the disk: whole or not at all."""

from pathlib import Path

from saq_qat.report.collect import Collected
from saq_qat.report.details import details_of
from saq_qat.report.html.page import THUMBNAILS, report_page
from saq_qat.report.model_card import model_card
from saq_qat.train.files import make_folder, write_whole

__all__ = ["write_page", "write_text"]


def write_page(known: Collected, path: Path) -> list[Path]:
    """Write a run's page, and its model_card.md beside it; gives both files.

    Raises:
        SaqError: a file cannot be written. ArtifactError: a file of the run is damaged.
    """
    card = path.with_name("model_card.md")
    write_text(path, report_page(known, details_of(known, THUMBNAILS)))
    write_text(card, model_card(known))
    return [path, card]


def write_text(path: Path, text: str) -> None:
    """Write UTF-8; what is none (names of files may be anything) is replaced.

    Raises:
        SaqError: the disk is full, or the folder cannot be written; an older file is untouched.
    """
    make_folder(path.parent)
    write_whole(path, text.encode("utf-8", "replace"))
