"""The queue as a client sees it."""
import graphs
from node import Node, wait
from registry import check, test


@test()
def a_picture_from_a_graph():
    """One item from enqueue to PNG."""
    with Node() as n:
        item, = n.enqueue(graphs.picture(steps=4))
        n.completed([item])
        picture, = n.pictures(item)
        check((picture["width"], picture["height"]) == (64, 64), picture)
        bytes_ = n.call("image_get", image_name=picture["image_name"])["bytes"]
        check(bytes_[:8] == b"\x89PNG\r\n\x1a\n" and len(bytes_) == picture["bytes"], len(bytes_), picture)
        check(n.outputs() == [picture["image_name"]], n.outputs())
        n.call("image_delete", image_name=picture["image_name"])
        check(n.outputs() == [] and n.pictures(item) == [], "the picture is still there")
        check(n.refused("image_get", image_name=picture["image_name"]).code == "not_found")
