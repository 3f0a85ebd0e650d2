"""Finding and swapping the files that an input names."""

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.files import addresses

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def test_each_place_is_told_by_its_pointer():
    url = addresses.url_of(uuid4())
    value = {"prompt": "a mecha", "image_url": url, "elements": [{"a/b": url}, {"x": "callsheet://files/1"}]}

    found = addresses.own(value)

    assert [place.pointer for place in found] == ["/image_url", "/elements/0/a~1b", "/elements/1/x"]
    assert addresses.ids(value) == {addresses.id_in(url)}


@pytest.mark.parametrize("change", [str.upper, lambda url: url + "/", lambda url: url.replace("-", "")])
def test_an_address_has_one_spelling(change):
    assert addresses.id_in(change(addresses.url_of(uuid4()))) is None


@pytest.mark.parametrize(
    "text", ["data: the movie", "data:\nimage/png, he said", "database", "data:,x", "a data:image/png;base64,"]
)
def test_a_prompt_is_no_data_uri(text):
    assert addresses.data_uris({"prompt": text}) == []


@pytest.mark.parametrize(
    "text", ["data:image/png;base64,AA==", "DATA:image/png;BASE64,AA==", "data:;base64,AA==", "data:image/svg+xml,x"]
)
def test_a_data_uri_is_found_wherever_it_is(text):
    assert [place.pointer for place in addresses.data_uris({"a": [{"b": text}]})] == ["/a/0/b"]


@given(JSON, st.sampled_from(["callsheet://files/1", "data:,x", "data:;base64,AA==", "x"]))
def test_an_input_has_files_where_a_place_has_one(value, text):
    value = {"in": value, "image_url": text}

    assert addresses.any_in(value) == bool(addresses.own(value) or addresses.data_uris(value))


def test_files_are_looked_for_however_deep_an_input_is():
    value: list[object] = ["data:;base64,AA=="]
    for _ in range(10_000):
        value = [value]

    assert addresses.any_in(value)


@given(JSON, st.uuids())
def test_swapping_there_and_back_changes_nothing(value, file_id):
    url, other = addresses.url_of(file_id), f"https://fal.example/{file_id}"

    there = addresses.swapped({"in": value, "image_url": url}, {url: other})

    assert there["image_url"] == other
    assert addresses.swapped(there, {other: url}) == {"in": value, "image_url": url}
