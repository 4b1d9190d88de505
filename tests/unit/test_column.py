"""Columns that are joined say what they said apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from context.column import Column

texts = st.lists(st.one_of(st.none(), st.sampled_from("abcde")), min_size=1, max_size=6)


def told(column: Column) -> list[str | None]:
    names = [*column.values, None]  # -1, the last one, stands for no text
    assert [*column.values.values()] == [*range(len(column.values))]
    return [names[code] for code in column.codes.tolist()]


@given(st.lists(texts, min_size=1, max_size=4))
def test_joined_columns_hold_the_texts_of_all(parts: list[list[str | None]]) -> None:
    columns = [Column.sparse(part) for part in parts]
    before = [dict(column.values) for column in columns]
    assert told(Column.join(columns)) == [text for part in parts for text in part]
    assert [column.values for column in columns] == before
