"""The order of migrations, and what is told about circles."""

from __future__ import annotations

from massmigration.discovery.graph import MigrationGraph, get_sort_key


def make_graph(*dependencies: tuple[str, str], nodes: tuple[str, ...] = ()) -> MigrationGraph:
    """Return a graph of ``(child, parent)`` pairs and single nodes."""
    graph = MigrationGraph()
    for node in nodes:
        graph.add_node(node)
    for child, parent in dependencies:
        graph.add_dependency(child, parent)
    return graph


def test_order_puts_dependencies_first_and_is_sorted_otherwise():
    graph = make_graph(("a:0001_x", "b:0002_y"), ("b:0002_y", "b:0001_y"), nodes=("b:0003_y", "a:0002_x", "c:0001_z"))
    assert graph.order() == ["b:0001_y", "b:0002_y", "a:0001_x", "a:0002_x", "b:0003_y", "c:0001_z"]


def test_order_does_not_depend_on_the_order_of_adding():
    pairs = [("a:0003_x", "a:0001_x"), ("a:0002_x", "a:0001_x"), ("b:0001_y", "a:0003_x")]
    assert make_graph(*pairs).order() == make_graph(*reversed(pairs)).order()


def test_numbers_are_sorted_as_numbers():
    graph = make_graph(nodes=("a:10000_x", "a:9999_x", "a:10_x", "a:9_x"))
    assert graph.nodes == ["a:9_x", "a:10_x", "a:9999_x", "a:10000_x"]
    assert get_sort_key("a:x") == ("a", 0, "x")


def test_parents_are_direct_ones():
    graph = make_graph(("a:3_c", "a:2_b"), ("a:2_b", "a:1_a"), ("a:3_c", "b:1_a"))
    assert graph.parents("a:3_c") == ["a:2_b", "b:1_a"]


def test_ancestors_come_in_the_order_of_running_without_the_key():
    graph = make_graph(("a:4_d", "a:3_c"), ("a:4_d", "a:2_b"), ("a:3_c", "a:1_a"), ("a:2_b", "a:1_a"))
    assert graph.ancestors("a:4_d") == ["a:1_a", "a:2_b", "a:3_c"]
    assert graph.ancestors("a:1_a") == []


def test_without_circles_there_are_none():
    assert make_graph(("a:2_b", "a:1_a"), ("a:3_c", "a:1_a"), ("a:3_c", "a:2_b")).cycles() == []


def test_circles_are_told_and_left_out_of_the_order():
    graph = make_graph(("a:1_a", "b:1_a"), ("b:1_a", "a:1_a"), ("c:1_c", "c:1_c"), ("a:2_b", "a:1_a"), nodes=("d:1_d",))
    assert graph.cycles() == [["a:1_a", "b:1_a"], ["c:1_c"]]
    assert graph.order() == ["a:2_b", "d:1_d"]
    assert graph.ancestors("a:1_a") == ["b:1_a"]
    assert graph.ancestors("a:2_b") == ["b:1_a", "a:1_a"]


def test_circles_that_share_a_node_are_one_group():
    graph = make_graph(("a:1_a", "a:2_b"), ("a:2_b", "a:1_a"), ("a:2_b", "a:3_c"), ("a:3_c", "a:2_b"))
    assert graph.cycles() == [["a:1_a", "a:2_b", "a:3_c"]]


def test_what_lies_between_two_circles_is_in_none():
    graph = make_graph(
        ("a:1_a", "a:2_b"), ("a:2_b", "a:1_a"), ("a:3_c", "a:2_b"), ("a:4_d", "a:3_c"), ("a:4_d", "a:4_d")
    )
    assert graph.cycles() == [["a:1_a", "a:2_b"], ["a:4_d"]]
    assert graph.order() == ["a:3_c"]


def test_leaves_are_those_without_a_child_in_their_own_app():
    graph = make_graph(("a:2_b", "a:1_a"), ("b:1_a", "a:2_b"), nodes=("a:3_c", "ab:1_a"))
    assert graph.leaves("a") == ["a:2_b", "a:3_c"]
    assert graph.leaves("b") == ["b:1_a"]
    assert graph.leaves("none") == []


def test_a_long_chain_needs_no_recursion():
    keys = [f"a:{number}_x" for number in range(1, 5001)]
    graph = make_graph(*zip(keys[1:], keys, strict=False))
    assert graph.order() == keys
    assert graph.ancestors(keys[-1]) == keys[:-1]
    assert graph.cycles() == []
