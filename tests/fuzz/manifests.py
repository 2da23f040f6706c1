"""manifest.json of a bundle: every key removed, renamed, of another type or absurd, and harmed text."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

from saq_qat_runtime.bundle.manifest import Manifest
from saq_qat_runtime.errors import SessionError
from saq_qat_runtime.report.info_text import info_text
from tests.fuzz.bundles import SmallBundle, used
from tests.fuzz.mutate import damaged_bytes, damaged_text, damaged_tree
from tests.fuzz.surface import Case, Surface

__all__ = ["SURFACE"]


def _content(random: Random, bundle: SmallBundle) -> bytes:
    if random.random() < 0.7:
        text = json.dumps(damaged_tree(random, bundle.manifest))
        text = damaged_text(random, text) if random.random() < 0.1 else text
    else:
        text = damaged_text(random, bundle.files["manifest.json"].decode())
    content = text.encode(errors="surrogatepass")
    return damaged_bytes(random, content) if random.random() < 0.1 else content


@contextmanager
def _opened(folder: Path) -> Iterator[Case]:
    bundle = SmallBundle(folder)
    before = sorted(folder.rglob("*"))

    def case(random: Random) -> str:
        bundle.write("manifest.json", _content(random, bundle))
        outcome = used(bundle.folder)
        try:
            manifest = Manifest.load(bundle.folder)
        except SessionError:
            assert outcome != "whole"
        else:
            assert Manifest.from_json(manifest.to_json()) == manifest
            "\n".join(info_text(manifest, bundle.folder)).encode(errors="replace")
        assert sorted(folder.rglob("*")) == before
        return outcome

    yield case


SURFACE = Surface("manifests", _opened)
