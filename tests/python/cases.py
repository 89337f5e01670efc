"""What the conformance scripts share: they run every case, whatever became of the others, and say `ok NAME` or `not ok NAME - why`."""

import os
import sys
import traceback

# Behind another proxy: its key.
KEY = os.environ.get("GROUNDTONE_TEST_KEY", "unused")
# Nothing stands between the client and the server.
DIRECT = "GROUNDTONE_TEST_MAKER" not in os.environ
CASES = []


def case(function):
    CASES.append(function)
    return function


def reason(problem):
    """One line: what was said, or the line whose promise did not hold."""
    said = str(problem).strip()
    if isinstance(problem, AssertionError) and not said:
        said = next(frame.line for frame in reversed(traceback.extract_tb(problem.__traceback__)) if frame.filename.startswith(sys.path[0]))
    return f"{type(problem).__name__}: {said.splitlines()[0] if said else ''}"


def run():
    failed = 0
    for function in CASES:
        try:
            function()
            print("ok", function.__name__, flush=True)
        except Exception as problem:
            failed += 1
            print("not ok", function.__name__, "-", reason(problem), flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)
