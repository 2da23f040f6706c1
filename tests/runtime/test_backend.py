"""What every backend says alike."""

import pytest

from saq_qat_runtime.backend import declared_by_model
from saq_qat_runtime.errors import ModelError


def test_a_size_that_an_engine_leaves_open_is_told_apart_from_the_batch() -> None:
    with pytest.raises(ModelError, match=r"has 'logits' as \['N', 'open'\]; only the batch"):
        declared_by_model("logits", "float32", ("N", "N"))
    with pytest.raises(ModelError, match=r"has 'logits' as \['N', 0\]; .*must be positive"):
        declared_by_model("logits", "float32", ("N", 0))
