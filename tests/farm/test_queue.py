"""The queue as a client sees it."""
import graphs
from fake import fake_node, script
from node import Node, Refused, wait
from registry import check, test


@test()
def a_picture_from_a_graph():
    """One item from enqueue to PNG."""
    with Node() as n:
        item, = n.enqueue(graphs.picture(steps=4))
        n.completed([item])
        picture, = n.pictures(item)
        check((picture["width"], picture["height"]) == (64, 64), picture)
        data = n.call("image_get", image_name=picture["image_name"])["bytes"]
        check(data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) == picture["bytes"], len(data), picture)
        check(n.outputs() == [picture["image_name"]], n.outputs())
        n.call("image_delete", image_name=picture["image_name"])
        check(n.outputs() == [] and n.pictures(item) == [], "the picture is still there")
        check(n.refused("image_get", image_name=picture["image_name"]).code == "not_found")


@test()
def batches_expand_as_zip_times_product_times_runs():
    """(2 zipped) x (3) x (2 runs) = 12 items, each with its own values."""
    with Node() as n:
        data = [[{"node_path": "sum", "field_name": "a", "items": [1, 2]}, {"node_path": "sum", "field_name": "b", "items": [10, 20]}],
                [{"node_path": "other", "field_name": "a", "items": [5, 6, 7]}]]
        g = graphs.graph({"sum": {"type": "add", "a": 0, "b": 0}, "other": {"type": "add", "a": 0, "b": 0}})
        ids = n.enqueue(g, runs=2, data=data)
        check(len(ids) == 12 and ids == list(range(ids[0], ids[0] + 12)), ids)
        n.completed(ids)
        sums = []
        for i in ids:
            results = n.call("item", item_id=i)["session"]["results"]
            sums.append(tuple(sorted(r["value"] for r in results.values())))
        check(sorted(sums) == sorted([(o, s) for s in (11, 22) for o in (5, 6, 7)] * 2), sums)
        batch = n.call("batch", batch_id=n.row(ids[0])["batch_id"])
        check(batch["completed"] == 12 and batch["total"] == 12, batch)


@test()
def the_answer_of_enqueue_is_invokes():
    """queue_id, requested, enqueued, batch echoed with its id, item_ids newest first."""
    with Node() as n:
        n.call("pause")
        r = n.call("enqueue", batch={"graph": graphs.add(), "runs": 3, "origin": "here", "destination": "there"})
        check(r["requested"] == r["enqueued"] == 3 and r["queue_id"] == "default", r)
        check(r["item_ids"] == sorted(r["item_ids"], reverse=True), r["item_ids"])
        check(r["batch"]["origin"] == "here" and r["batch"]["batch_id"], r["batch"])
        row = n.row(r["item_ids"][0])
        check((row["origin"], row["destination"], row["status"]) == ("here", "there", "pending"), row)


@test()
def order_is_priority_then_age_and_prepend_goes_first():
    """prepend overtakes what is pending; next tells whose turn it is."""
    with Node() as n:
        n.call("pause")
        first = n.enqueue(graphs.add(), runs=2)
        ahead = n.enqueue(graphs.add(), runs=2, prepend=True)
        again = n.enqueue(graphs.add(), prepend=True)
        check(n.call("next")["item"]["item_id"] == again[0], n.call("next")["item"])
        n.call("resume")
        rows = n.completed(first + ahead + again)
        order = sorted(rows, key=lambda i: (rows[i]["started_at"], i))
        starts = {i: rows[i]["started_at"] for i in rows}
        check(starts[again[0]] <= min(starts[i] for i in ahead) <= max(starts[i] for i in ahead) <= min(starts[i] for i in first), order)


@test()
def pause_survives_a_restart():
    """pause is durable, for the queue and for one device; nothing starts meanwhile."""
    with Node("[cpu:0, cpu:1]") as n:
        n.call("pause")
        n.call("pause", device="cpu:1")
        ids = n.enqueue(graphs.add(), runs=4)
        check(n.call("status")["ready"] is False and "paus" in n.call("status")["reason"], n.call("status")["reason"])
        n.kill()
        n.start(ready=False)
        check(n.call("status")["node"]["paused"] is True)
        check([r["status"] for r in n.items()] == ["pending"] * 4, n.items())
        check([w["paused"] for w in n.workers()] == [False, True], n.workers())
        n.call("resume")
        rows = n.completed(ids)
        check({r["device"] for r in rows.values()} == {"cpu:0"}, rows)
        n.call("resume", device="cpu:1")
        check(n.refused("pause", device="cpu:7").code in ("not_found", "no_device"))


@test()
def idempotency_keys():
    """The same key and body give the first answer again, also after a restart; another body is a conflict."""
    with Node() as n:
        ids = n.enqueue(graphs.add(1, 2), runs=3, key="job-1")
        check(n.enqueue(graphs.add(1, 2), runs=3, key="job-1") == ids, "a second batch was made")
        n.completed(ids)
        n.kill()
        n.start()
        check(n.enqueue(graphs.add(1, 2), runs=3, key="job-1") == ids, "a second batch was made after the restart")
        e = n.refused("enqueue", batch={"graph": graphs.add(1, 3), "runs": 3}, key="job-1")
        check(e.code == "conflict" and "job-1" in e.message, e)
        check(len(n.items()) == 3, "items")
        check(n.enqueue(graphs.add(1, 2), runs=3, key="job-2") != ids, "another key is another batch")


@test()
def a_full_queue_refuses_the_whole_batch():
    """queue_full names pending, limit and asked; nothing of the batch is stored."""
    with Node(max_queue_size=10) as n:
        n.call("pause")
        n.enqueue(graphs.add(), runs=8)
        e = n.refused("enqueue", batch={"graph": graphs.add(), "runs": 3})
        check(e.code == "queue_full" and all(x in e.message for x in ("8", "10", "3")), e)
        check(len(n.items()) == 8, "a truncated batch")
        n.enqueue(graphs.add(), runs=2)


@test()
def retry_prune_delete_clear():
    """retry makes new items and answers their ids; prune, delete and clear remove what they say, and nothing else."""
    with fake_node() as n:
        bad, good = n.enqueue(script("fail")) + n.enqueue(script(""))
        n.settled([bad, good])
        new, = n.call("retry", item_ids=[bad, good])["item_ids"]        # a completed item is left out
        check(new > good and n.settled([new])[new]["retried_from_item_id"] == bad, n.row(new))
        again, = n.call("retry", item_ids=[good], again=True)["item_ids"]
        n.completed([again])
        check(n.refused("delete", item_ids=[again, 10 ** 9]).code == "not_found", "an unknown id was passed over")
        check(n.call("delete", item_ids=[again])["item_ids"] == [again])
        check([r["item_id"] for r in n.items()] == [bad, good, new], n.items())
        n.call("pause")
        waits, = n.enqueue(script(""))
        check(sorted(n.call("prune")["item_ids"]) == [bad, good, new], "prune")
        check([r["item_id"] for r in n.items()] == [waits], n.items())
        n.call("resume")
        n.completed([waits])
        busy, = n.enqueue(script("wait=60"))
        later = n.enqueue(script(""), runs=3)
        wait("the item to run", lambda: n.worker()["item_id"] == busy)
        check(sorted(n.call("clear")["item_ids"]) == [waits, busy] + later, "clear")
        check(n.items() == [], n.items())
        wait("an idle worker", lambda: n.worker()["state"] == "ready")
        n.completed(n.enqueue(script("")))


@test()
def pictures_go_with_their_items_only_when_asked():
    """delete keeps pictures unless images is true."""
    with Node() as n:
        a, b = n.enqueue(graphs.picture(steps=1), runs=2)
        n.completed([a, b])
        name_a, name_b = n.pictures(a)[0]["image_name"], n.pictures(b)[0]["image_name"]
        n.call("delete", item_ids=[a])
        check(name_a in n.outputs(), "the picture went too")
        check(n.call("delete", item_ids=[b], images=True)["images_deleted"] == 1)
        check(name_b not in n.outputs(), "the picture stayed")


@test()
def cancel_in_every_state():
    """pending at once, running at its worker, terminal not at all; unknown is not_found."""
    with fake_node() as n:
        busy, = n.enqueue(script("wait=60"))
        pending = n.enqueue(script(""), runs=3)
        wait("the item to run", lambda: n.worker()["item_id"] == busy)
        check(n.call("cancel", item_id=pending[0])["item_ids"] == [pending[0]])
        check(n.row(pending[0])["status"] == "canceled")
        check(n.call("cancel_all_except_current")["item_ids"] == pending[1:])
        check(n.row(busy)["status"] == "in_progress")
        check(n.call("cancel", item_id=busy)["item_ids"] == [busy])
        check(n.settled([busy])[busy]["status"] == "canceled")
        check(n.call("cancel", item_id=busy)["item_ids"] == [], "a second cancel changed something")
        check(n.refused("cancel", item_id=10 ** 9).code == "not_found")
        batch = n.call("enqueue", batch={"graph": script("wait=60"), "runs": 3})
        wait("one of it to run", lambda: n.worker()["item_id"] in batch["item_ids"])
        other = n.enqueue(script(""))
        check(sorted(n.call("cancel_by_batch_ids", batch_ids=[batch["batch"]["batch_id"]])["item_ids"]) == sorted(batch["item_ids"]))
        check(all(r["status"] == "canceled" for r in n.settled(batch["item_ids"]).values()))
        n.completed(other)


@test()
def a_stale_cancel_changes_nothing():
    """A cancel for another attempt than the current one."""
    with fake_node() as n:
        item, = n.enqueue(script("1:exit=1 wait=1"))
        wait("the second attempt", lambda: n.row(item)["attempt"] == 2 and n.worker()["item_id"] == item)
        try:
            check(n.call("cancel", item_id=item, attempt=1)["item_ids"] == [], "the stale cancel changed something")
        except Refused as e:
            check(e.code == "bad_state", e)
        check(n.completed([item])[item]["attempt"] == 2)


@test()
def pages_and_filters_of_items():
    """Rows ascending by item_id, a cursor at each page's end, none at the last."""
    with Node() as n:
        n.call("pause")
        ids = n.enqueue(graphs.add(), runs=25, batch={"origin": "a"}) + n.enqueue(graphs.add(), runs=5, batch={"origin": "b", "destination": "d"})
        page = n.call("items", limit=10)
        check([r["item_id"] for r in page["items"]] == ids[:10] and page["cursor"], page["cursor"])
        page = n.call("items", limit=10, cursor=page["cursor"])
        check([r["item_id"] for r in page["items"]] == ids[10:20], page)
        page = n.call("items", limit=10, cursor=page["cursor"])
        check([r["item_id"] for r in page["items"]] == ids[20:] and page["cursor"] is None, page)
        check([r["item_id"] for r in n.items(origin="b")] == ids[25:] == [r["item_id"] for r in n.items(destination="d")])
        n.call("cancel", item_id=ids[3])
        check([r["item_id"] for r in n.items(status="canceled")] == [ids[3]])
        check(n.refused("items", limit=1001).code == "bad_argument")
        check("1000" in n.refused("items", limit=1001).message)


@test()
def ten_thousand_items_in_one_request():
    """runs: 10000 is accepted at once, listed in pages, and canceled."""
    with Node() as n:
        n.call("pause")
        ids = n.enqueue(graphs.add(), runs=10000)
        check(len(ids) == 10000 and n.call("status")["queue"]["pending"] == 10000)
        check(len(n.items()) == 10000)
        check(len(n.call("cancel_all_except_current", within=30)["item_ids"]) == 10000)
        check(n.call("status")["queue"]["canceled"] == 10000)
