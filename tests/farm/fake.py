"""A node whose workers are tests/farm/fake_worker.py."""
import os
import shutil
import tempfile

import graphs
import node

FOLDER = os.path.dirname(os.path.abspath(__file__))


def bin_dir():
    """A folder of programs in which galley-worker is the fake one. galleyd looks for it beside its own file, so that is copied."""
    folder = tempfile.mkdtemp(prefix="b", dir=os.environ["FARM_ROOT"])
    shutil.copy(node.BIN + "/galleyd", folder)
    os.symlink(FOLDER + "/fake_worker.py", folder + "/galley-worker")
    return folder


def fake_node(devices="[cpu:0]", **config):
    os.environ["FARM_FOLDER"] = FOLDER
    os.environ.setdefault("GALLEY_DATA", os.path.abspath(FOLDER + "/../.."))
    return node.Node(devices, bin_dir=bin_dir(), **config)


def script(words):
    """A graph whose worker does WORDS."""
    return graphs.graph({"script": {"type": "string", "value": words, "use_cache": False}})
