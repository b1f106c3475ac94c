#!/usr/bin/env python3
"""Judges a report of the Autobahn suite: judge.py REPORT_DIR SUITE_VERSION

Prints the summary as Markdown; exit status 0 if the server conforms, 1 if not (the reasons go to standard error).
The summary says nothing that changes between two runs with the same results.
"""

import json
import pathlib
import sys

# The groups that scripts/conformance.sh asks for hold this many cases. Fewer in the report means that the
# suite stopped on the way, and what it did not ask, it cannot have found.
CASES = 301
GROUPS = {
    "1": "framing",
    "2": "pings and pongs",
    "3": "reserved bits",
    "4": "opcodes",
    "5": "fragmentation",
    "6": "UTF-8",
    "7": "close handshake",
    "9": "limits and performance",
    "10": "auto-fragmentation",
}
# The suite itself says of these that no answer is wrong: a close behind 256 KiB of data, and close codes
# that no standard has given away.
INFORMATIONAL = {"7.1.6", "7.13.1", "7.13.2"}


def main(report_dir, suite):
    index = json.loads(pathlib.Path(report_dir, "index.json").read_text())
    (cases,) = index.values()  # one server was tested
    problems = {case: why for case, result in cases.items() if (why := problem(case, result))}
    print(summary(cases, problems, suite), end="")
    for case in sorted(problems, key=by_number):
        print(f"conformance: {case}: {problems[case]}", file=sys.stderr)
    if len(cases) != CASES:
        print(f"conformance: {len(cases)} cases were run, not {CASES}", file=sys.stderr)
    return 0 if not problems and len(cases) == CASES else 1


def problem(case, result):
    """None where the result conforms."""
    behavior, close = result["behavior"], result["behaviorClose"]
    allowed = {"OK", "INFORMATIONAL"} if case in INFORMATIONAL else {"OK"}
    if behavior not in allowed or close not in allowed:
        return f"behavior {behavior}, close {close}"
    return None


def summary(cases, problems, suite):
    lines = [
        "# RFC 6455 conformance",
        "",
        f"Written by `make conformance`: {suite}, fuzzing client, against the echo endpoint.",
        "",
        "| group | cases | ok | informational | wrong |",
        "| --- | --- | --- | --- | --- |",
    ]
    for group, name in GROUPS.items():
        lines.append(row(f"{group} {name}", [c for c in cases if c.split(".")[0] == group], cases, problems))
    lines += [row("all", list(cases), cases, problems), ""]
    informational = sorted((c for c in cases if is_informational(c, cases, problems)), key=by_number)
    if informational:
        lines += [f"Informational, where no answer is wrong: {', '.join(informational)}.", ""]
    lines += ["Groups 12 and 13 are about compression, which is never negotiated.", ""]
    return "\n".join(lines)


def row(title, members, cases, problems):
    wrong = sum(case in problems for case in members)
    informational = sum(is_informational(case, cases, problems) for case in members)
    return f"| {title} | {len(members)} | {len(members) - wrong - informational} | {informational} | {wrong} |"


def is_informational(case, cases, problems):
    return case not in problems and "INFORMATIONAL" in (cases[case]["behavior"], cases[case]["behaviorClose"])


def by_number(case):
    return [int(part) for part in case.split(".")]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: judge.py REPORT_DIR SUITE_VERSION")
    sys.exit(main(*sys.argv[1:]))
