"""docs/reference.md from the lists in the source: `python3 -B tests/lint/reference.py` prints it, `... --write` puts it in place."""
import os, re, sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def rows(root, name):
    """[(MACRO, [argument, ...])] of the X-macro list NAME: arguments as written, texts without their quotes."""
    with open(os.path.join(root, name), encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    token = re.compile(r'\s*("(?:\\.|[^"\\])*"|[^",()]+)\s*')
    found, at = [], 0
    for match in re.finditer(r"\b([A-Z_]+)\(", text):
        if match.start() < at:
            continue
        at, arguments = match.end(), []
        while at < len(text) and text[at] != ")":
            part = token.match(text, at)
            if part:
                word = part.group(1).strip()
                arguments.append(word[1:-1].replace('\\"', '"') if word.startswith('"') else word)
                at = part.end()
            elif text[at] in ", \n":
                at += 1
            else:
                raise ValueError("%s: cannot read %r" % (name, text[at:at + 40]))
        found.append((match.group(1), arguments))
    return found


def cell(text):
    return text.replace("|", "\\|")


def statuses(root):
    yield "| code | who can mend it | meaning |\n| --- | --- | --- |"
    who = {"NONE": "nobody has to", "CALLER": "the caller", "RETRY": "the same call, later", "OPERATOR": "the operator", "US": "a bug of galley's"}
    for _, (_, name, action, text) in rows(root, "common/status.def"):
        yield "| `%s` | %s | %s |" % (name, who[action], cell(text))


def keys(root):
    yield "| key | default | allowed | takes effect | meaning |\n| --- | --- | --- | --- | --- |"
    for _, (name, kind, default, low, high, apply, text) in rows(root, "common/config.def"):
        allowed = {"BOOL": "true, false", "INT": "%s..%s" % (low, high), "FLOAT": "%s..%s" % (low, high), "ENUM": low.replace("|", ", "), "STRING": "text", "LIST": "list"}[kind]
        yield "| `%s` | %s | %s | %s | %s |" % (name, "`%s`" % default if default else "", allowed, "on reload" if apply == "RELOAD" else "at the next start", cell(text))


def commands(root):
    yield "| command | argument | type | meaning |\n| --- | --- | --- | --- |"
    later = []
    for macro, arguments in rows(root, "proto/commands.def"):
        if macro == "COMMAND":
            yield "| `%s` | | | %s |" % (arguments[0], cell(arguments[2]))
        elif macro == "ARGUMENT":
            name, kind, required, low, high, available, text = arguments
            bounds = " %s..%s" % (low, high) if kind in ("INT", "NUM") else ""
            notes = [n for n, on in (("required", required == "true"), ("not available yet", available != "true")) if on]
            yield "| | `%s` | %s%s | %s%s |" % (name, kind.lower(), bounds, cell(text), " (%s)" % ", ".join(notes) if notes else "")
        elif macro == "LATER":
            later.append("`%s`" % arguments[0])
    yield "\nKnown, but answered with `not_available` until later: %s." % ", ".join(later)


def ops(root):
    yield "| op | every backend has it | f32 | f16 | bf16 |\n| --- | --- | --- | --- | --- |"
    for _, (_, name, required, f32, f16, bf16) in rows(root, "worker/backend/ops.def"):
        yield "| `%s` | %s | %s | %s | %s |" % (name, "yes" if required == "1" else "no", f32, f16, bf16)


def text(root=ROOT):
    parts = ["# Reference\n\nMade from the lists in the source by `python3 -B tests/lint/reference.py --write`; a test tells when it is out of date."]
    for title, lead, table in (
            ("Status codes", "`code` of an error, from [common/status.def](../common/status.def).", statuses),
            ("Configuration keys", "Of `galley.yaml`, from [common/config.def](../common/config.def); each also as `GALLEY_` and the key in capitals, the value as YAML.", keys),
            ("Commands", "Of the control socket, from [proto/commands.def](../proto/commands.def).", commands),
            ("Ops", "Of a backend, from [worker/backend/ops.def](../worker/backend/ops.def); the numbers are the relative L2 distance from `ref` that the tests allow.", ops)):
        parts.append("## %s\n%s\n\n%s" % (title, lead, "\n".join(table(root))))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        with open(os.path.join(ROOT, "docs/reference.md"), "w", encoding="utf-8") as out:
            out.write(text())
    else:
        sys.stdout.write(text())
