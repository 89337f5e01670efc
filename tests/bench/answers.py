"""Starts the demo and measures it: start-up, memory, latency, and how often answers to the 20 held-out questions cite the right document and hold the fact.

    ./gt bench answers              # also with each policy for unsupported citations: --policies
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start(binary, folder, **settings):
    """Starts the demo on a free port; gives the process, its address, and the seconds until questions can be asked."""
    began = time.time()
    arguments = [binary, "demo", "--port", "0", "--data", str(folder / "data")]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, "GROUNDTONE_OFFLINE": "1", **settings})
    for line in process.stdout:
        if "http://" in line:
            return process, line.split()[2].rstrip("/"), time.time() - began
    sys.exit("the demo did not start")


def rss_megabytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return None


def stop(process):
    process.terminate()
    process.wait(timeout=30)


def processor():
    names = [line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def ask(address, printing=False):
    """The counts of the 20 questions."""
    script = [sys.executable, ROOT / "tests/python/twenty_questions.py", f"{address}/v1", ROOT / "samples/kettlewren/questions.jsonl"]
    lines = subprocess.run(script, capture_output=True, text=True, check=True).stdout.splitlines()
    if printing:
        print("\n".join(lines[:-1]))
    return json.loads(lines[-1])


def policies(binary, folder):
    """The same questions under each policy."""
    for policy in ("report", "repair", "remove", "refuse"):
        process, address, _ = start(binary, folder, GROUNDTONE_CITATIONS_POLICY=policy)
        print(json.dumps({"policy": policy, **ask(address)}))
        stop(process)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    parser.add_argument("--policies", action="store_true", help="what becomes of unsupported citations under each citations.policy")
    arguments = parser.parse_args()
    result = {"machine": processor(), "load_average_before": os.getloadavg()[0]}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process, _, result["first_start_seconds"] = start(arguments.binary, folder)
        stop(process)
        process, address, result["second_start_seconds"] = start(arguments.binary, folder)
        time.sleep(2)
        result["idle_rss_mb"] = rss_megabytes(process.pid)
        result["answers"] = ask(address, printing=True)
        result["rss_after_20_answers_mb"] = rss_megabytes(process.pid)
        stop(process)
        if arguments.policies:
            policies(arguments.binary, folder)
    print(json.dumps({key: round(value, 2) if isinstance(value, float) else value for key, value in result.items()}))


if __name__ == "__main__":
    main()
