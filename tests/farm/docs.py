"""What docs/protocol.md says, for the tests that hold it to its word."""
import os
import re

PATH = os.path.dirname(os.path.abspath(__file__)) + "/../../docs/protocol.md"


def text():
    with open(PATH) as f:
        return f.read()


def events():
    """{event: the set of its fields}."""
    table = text().split("| event | fields")[1].split("\n\n")[0]
    rows = re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.M)
    return {name: {"event", "seq"} | set(re.findall(r"`(\w+)`", fields)) for name, fields in rows}


def preview_fields():
    return {f.strip() for f in re.search(r"A preview is `\{([^}]*)\}`", text()).group(1).split(",")}


def recipe(name):
    """The code of a recipe."""
    found = re.search(r"<!-- recipe: %s -->\n```\w+\n(.*?)```" % re.escape(name), text(), re.S)
    assert found, name
    return found.group(1)


def recipes():
    return re.findall(r"<!-- recipe: ([\w-]+) -->", text())
