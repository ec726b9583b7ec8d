"""Runs the rules over the tree: run.py [RULE...]. One line each, complaints below it, then "N passed, N failed, N skipped"."""
import sys

import rules, rules_can_fail


def main(names):
    known = {rule.__name__: rule for rule in rules.RULES + [rules_can_fail.every_rule_can_fail]}
    unknown = [n for n in names if n not in known]
    if unknown:
        print("no rule %s; there are: %s" % (", ".join(unknown), " ".join(known)), file=sys.stderr)
        return 2
    passed = failed = 0
    for name in names or known:
        complaints = list(known[name]())
        print("%s %s" % ("FAIL" if complaints else "ok  ", name))
        for complaint in complaints[:20]:
            print("       " + complaint)
        if len(complaints) > 20:
            print("       and %d more" % (len(complaints) - 20))
        passed, failed = passed + (not complaints), failed + bool(complaints)
    print("%d passed, %d failed, 0 skipped" % (passed, failed))
    return 1 if failed else 0


sys.exit(main(sys.argv[1:]))
