"""Reads folders of real documents with `groundtone extract` and `groundtone ingest`: which are read, in what time, and how much of the expected text is there.

    ./gt bench formats [FOLDER ...]

Where a folder has `expected_outputs/NAME.md` for a file `NAME.pdf`, the share of its words that our text has is printed too. The default folders are
markitdown's and pypdf's test files, named by GROUNDTONE_BENCH_FILES (folders separated by `:`); they are not part of this repository.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def words(text):
    return collections.Counter(re.findall(r"\w+", text.lower()))


def share(expected, found):
    expected, found = words(expected), words(found)
    return sum((expected & found).values()) / max(1, sum(expected.values()))


def expectations(folder):
    """Expected Markdown by the stem of its file; `test.md` says nothing of its file's ending and goes to the PDF, as in markitdown."""
    return {path.stem: path.read_text() for path in folder.glob("**/expected_outputs/*.md")}


def extract(binary, path):
    began = time.time()
    run = subprocess.run([binary, "extract", "--json", path], capture_output=True, text=True)
    seconds = time.time() - began
    answer = json.loads(run.stdout.splitlines()[-1])
    return answer, seconds


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--ingest", action="store_true", help="also ingest each folder with the local embedder")
    parser.add_argument("folders", nargs="*", type=Path)
    arguments = parser.parse_args()
    folders = arguments.folders or [Path(name) for name in os.environ.get("GROUNDTONE_BENCH_FILES", "").split(":") if name]
    if not folders:
        sys.exit("name folders of documents, or set GROUNDTONE_BENCH_FILES")
    results = []
    for folder in folders:
        expected = expectations(folder)
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and "expected_outputs" not in path.parts):
            answer, seconds = extract(arguments.binary, path)
            result = {"file": str(path.relative_to(folder)), "seconds": round(seconds, 3)}
            if "error" in answer:
                result["reason"] = answer["error"].removeprefix(f"{path} ")
            else:
                result.update(characters=len(answer["text"]), pages=len(answer["pages"]))
                if path.suffix == ".pdf" and path.stem in expected:
                    result["share"] = round(share(expected[path.stem], answer["text"]), 3)
            shown = result.get("reason") or f"ok {result['characters']} characters, {result['pages']} pages"
            wanted = f", {result['share']:.1%} of the expected words" if "share" in result else ""
            print(f"{result['seconds']:7.3f} s  {result['file']}: {shown}{wanted}", file=sys.stderr)
            results.append(result)
        if arguments.ingest:
            with tempfile.TemporaryDirectory() as data:
                command = [arguments.binary, "ingest", folder, "--data", data, "--json"]
                run = subprocess.run(command, capture_output=True, text=True)
                report = json.loads(run.stdout.splitlines()[-1])
                print(f"ingest {folder}: {report}", file=sys.stderr)
    shares = [result["share"] for result in results if "share" in result]
    summary = {
        "files": len(results),
        "read": sum("characters" in result for result in results),
        "refused": sum("reason" in result for result in results),
        "slowest_seconds": max(result["seconds"] for result in results),
        "mean_share_of_expected_words": round(sum(shares) / len(shares), 3) if shares else None,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
