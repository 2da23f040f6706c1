"""Tables by block: equal blocks once, names within their block, nothing lost or cut."""

from hypothesis import given
from hypothesis import strategies as st

from saq_qat.report.blocks import Row, block_table, blocks_of


def encoder(blocks: int, *, odd: int | None = None) -> list[Row]:
    """A patch embedding, blocks of two rows that name each other and the block before, and a head."""
    rows: list[Row] = [("patch_embed.proj", "8-bit", "image", 0.5)]
    for i in range(blocks):
        bits = "2-bit" if i == odd else "4-bit"
        rows += [(f"blocks.{i}.attn.q", bits, f"blocks_{i}_norm1, blocks_{i - 1}_add", 0.1 * (i + 1))]
        rows += [(f"blocks.{i}.mlp.fc1", "4-bit", f"blocks_{i}_norm2", 0.2)]
    return [*rows, ("head", "8-bit", "getitem_1", 0.3)]


def test_equal_blocks_are_one_with_names_within_it_and_ranges_of_numbers() -> None:
    first, block, last = blocks_of(encoder(12))
    assert (first.title, last.title) == ("", "")
    assert block.title == "blocks.0 to blocks.11, 12 alike"
    assert block.rows == (
        ("attn.q", "4-bit", "norm1, blocks_{-1..10}_add", "0.1 .. 1.2"),
        ("mlp.fc1", "4-bit", "norm2", "0.2"),
    )


def test_a_block_that_differs_in_one_word_stands_alone() -> None:
    titles = [block.title for block in blocks_of(encoder(6, odd=2)) if block.title]
    assert titles == ["blocks.0 to blocks.1, 2 alike", "blocks.2", "blocks.3 to blocks.5, 3 alike"]


def test_every_block_is_listed_on_demand() -> None:
    blocks = [block for block in blocks_of(encoder(12), fold=False) if block.title]
    assert [block.title for block in blocks] == [f"blocks.{i}" for i in range(12)]
    assert blocks[3].rows[0][2] == "norm1, blocks_2_add"


@given(st.lists(st.sampled_from(["2-bit", "4-bit"]), min_size=1, max_size=9))
def test_folding_loses_no_block(bits: list[str]) -> None:
    rows = [(f"layers_{i}_{name}", kind) for i, kind in enumerate(bits) for name in ("a", "b")]
    shown = [kind for b in blocks_of(rows) for _ in range(b.first, b.last + 1) for _, kind in b.rows]
    assert shown == [kind for _, kind in rows]


def test_numbers_within_other_names_are_no_blocks() -> None:
    rows = [(name, "4-bit") for name in ("conv1", "getitem_1", "layer1.0.conv1", "add_1", "add_2")]
    assert [block.rows[0][0] for block in blocks_of(rows)] == [name for name, _ in rows]


def test_numbers_stand_on_the_right_in_the_last_column_too() -> None:
    lines = block_table(("tensor", "differ"), [("norm1", "12"), ("norm2", "7")])
    assert lines == ["tensor  differ", "norm1       12", "norm2        7"]


def test_a_long_last_cell_goes_on_below_itself_and_no_name_is_cut() -> None:
    readers = ", ".join(f"blocks_7_attn_{name}" for name in ("query", "key", "value"))
    lines = block_table(("tensor", "read by"), [("norm1", readers)], left=(0, 1), width=40)
    assert all(len(line) <= 40 for line in lines)
    assert [line[8:] for line in lines[1:]] == [
        "blocks_7_attn_query,",
        "blocks_7_attn_key,",
        "blocks_7_attn_value",
    ]
    (_, whole) = block_table(("tensor", "read by"), [("norm1", readers)], left=(0, 1))
    assert whole.endswith(readers)
