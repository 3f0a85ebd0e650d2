"""Every index has a reason, and none does what another does."""

from tests.indexes import REASONS, Index, indexes


def test_every_index_has_a_reason_and_every_reason_an_index(database_url):
    assert {index.name for index in indexes(database_url) if index.needs_a_reason} == REASONS.keys()


def test_no_index_only_begins_another(database_url):
    found = indexes(database_url)

    # What is unique refuses something, even if another finds its rows.
    assert [(one.name, other.name) for one in found for other in found if not one.unique and one.begins(other)] == []


def test_an_index_that_only_begins_another_is_noticed():
    short = Index("jobs", "a", False, 1, " USING btree (x)", 1)
    long = Index("jobs", "b", False, 1, " USING btree (x, y)", 1)

    assert (short.begins(long), long.begins(short), short.begins(short)) == (True, False, False)
    assert not short.begins(long._replace(how=" USING btree (xx, y)"))
    assert not short.begins(long._replace(how=" USING btree (x, y) WHERE (y > 1)"))
