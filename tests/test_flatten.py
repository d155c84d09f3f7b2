from cots.flatten import flatten


def test_leaves_stand_by_dotted_name_in_their_order() -> None:
    nested = {"b": {"y": {"z": 1}, "x": [2, 3]}, "a": None, "c": {"B": "text"}}
    assert list(flatten(nested).items()) == [("b.y.z", 1), ("b.x", [2, 3]), ("a", None), ("c.B", "text")]


def test_an_empty_section_has_no_leaf() -> None:
    assert flatten({"a": {}, "b": {"c": {}}}) == {}
