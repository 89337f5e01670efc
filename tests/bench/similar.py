"""Measures how `groundtone dataset stats` finds planted near duplicates, conflicts and leaks. Each part prints one JSON line.

    ./gt bench similar [--rows 100000] [--planted 2000]

Rows are made-up questions of 8 to 60 words with an answer. A planted near duplicate has its case, punctuation and spacing changed, or one word in a long question;
a planted conflict is such a copy with another answer. A leak is a copy in the test part.
"""

import argparse
import json
import os
import random
import string
import sys
import tempfile
from pathlib import Path

from validate import watched

SEED = 20261127


def vocabulary(rng):
    return ["".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randrange(3, 10))) for _ in range(8_000)]


def copy_of(rng, words, question):
    """The same question as another person would type it."""
    parts = question.split()
    if len(parts) >= 40 and rng.random() < 0.5:
        parts[rng.randrange(len(parts))] = rng.choice(words)
    text = " ".join(parts)
    change = rng.randrange(3)
    if change == 0:
        return text.upper().rstrip("?") + "!"
    if change == 1:
        return text.replace(" ", "  ", 3).rstrip("?")
    return ", ".join(text.split(" ", 1)).rstrip("?") + "??"


def row(question, answer):
    return json.dumps({"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}) + "\n"


def score(found, planted):
    right = len(found & planted)
    return {"planted": len(planted), "found": len(found), "recall": right / max(len(planted), 1), "precision": right / max(len(found), 1)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--planted", type=int, default=2_000)
    arguments = parser.parse_args()
    rng = random.Random(SEED)
    words = vocabulary(rng)
    say = lambda length: " ".join(rng.choice(words) for _ in range(length))
    rows = [(say(rng.randrange(8, 60)) + "?", say(rng.randrange(6, 30)) + ".") for _ in range(arguments.rows - 2 * arguments.planted)]
    origins = rng.sample(range(len(rows)), 3 * arguments.planted)
    copies, conflicts, leaks = origins[: arguments.planted], origins[arguments.planted : 2 * arguments.planted], origins[2 * arguments.planted :]
    planted = [(at, (copy_of(rng, words, rows[at][0]), rows[at][1]), "copy") for at in copies] + [(at, (copy_of(rng, words, rows[at][0]), say(rng.randrange(6, 30)) + "."), "conflict") for at in conflicts]
    rng.shuffle(planted)
    near, against = set(), set()
    train = list(rows)
    for at, pair, kind in planted:
        train.append(pair)
        near.add((at + 1, len(train)))
        if kind == "conflict":
            against.add((at + 1, len(train)))
    test = [(copy_of(rng, words, rows[at][0]), "x") for at in leaks] + [(say(20), "x") for _ in range(arguments.planted)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part, content in (("train", train), ("test", test)):
            (folder / f"{part}.jsonl").write_text("".join(row(*pair) for pair in content))
        for parts in (["train"], ["train", "test"]):
            flags = [flag for part in parts for flag in (f"--{part}", str(folder / f"{part}.jsonl"))]
            seconds, processor, peak, text, code = watched([arguments.binary, "dataset", "stats", *flags, "--listed", "1000000", "--json"])
            if code:
                sys.exit(f"stats failed: {code}")
            report = json.loads(text)
            part = report["parts"][0]
            found = {(lines[0], line) for lines in part["near_duplicates"]["lines"] for line in lines[1:]}
            contradicting = {(conflict["lines"][0], line) for conflict in part["conflicts"]["examples"] for line in conflict["lines"][1:]}
            figures = {"near_duplicates": score(found, near), "conflicts": score(contradicting, against)}
            if report["leakage"]:
                wanted = {(at + 1, leaks[at]) for at in range(len(leaks))}
                figures["leaks"] = score({(there, here - 1) for there, here in report["leakage"][0]["lines"]}, wanted)
            print(json.dumps({"part": "+".join(parts), "rows": sum(part["rows"] for part in report["parts"]), "seconds": round(seconds, 1), "cpu_seconds": round(processor, 1), "peak_rss_mb": round(peak), "load": os.getloadavg()[0], **figures}), flush=True)


if __name__ == "__main__":
    main()
