"""What a switch of the release costs: under load, with open streams.

    ./gt bench release                                   # small: 200 requests/s for 5 s, 50 open streams
    ./gt bench release --seconds 50 --streams 200        # 10,000 requests

Half of the requests are streamed. Every second something is promoted or rolled back; the next question tells when it is in force: `effective_ms` is the time from sending the
change to having the whole answer of the other variant. A request that fails and a stream that ends are counted.
"""

import argparse
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from proxy import DOCUMENTS, ROOT, Running  # noqa: E402


def start(binary, folder, mock):
    """Ingests the five documents and serves them as two variants; gives the process and its address."""
    documents = folder / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    settings = f'[chat]\nkind = "openai"\nmodel = "mock"\nurl = "{mock}/v1"\ncontext_tokens = 8000\nremote_parallel = 20000\n[gate]\nthreshold = 0.0\n'
    settings += '[retrieval]\nmode = "bm25"\n[assistant]\nname = "shop"\n[server]\nrequest_timeout_seconds = 3600\n[variants.tuned-rag]\nmodel = "other"\n'
    (folder / "groundtone.toml").write_text(settings)
    environment = {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data")}
    subprocess.run([binary, "ingest", str(documents)], check=True, cwd=folder, env=environment, capture_output=True)
    running = Running([binary, "serve", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in running.process.stdout:
        if "http://" in line:
            return running, "http://" + line.split("http://")[1].split()[0].rstrip("/")
    sys.exit("groundtone did not start")


def post(url, body):
    request = urllib.request.Request(url, json.dumps(body).encode(), {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)


def answered_by(address):
    body = {"model": "shop", "messages": [{"role": "user", "content": "How long can I send my grinder back?"}]}
    return post(f"{address}/v1/chat/completions", body)["groundtone"]["variant"]


def switch(address, number):
    """One change; gives how long the change took and how long until the other variant had answered, in milliseconds."""
    began = time.perf_counter()
    if number % 2 == 0:
        post(f"{address}/v1/groundtone/releases/promote", {"variant": "tuned-rag", "force": "tuned-rag", "reason": "bench"})
        wanted = "tuned-rag"
    else:
        post(f"{address}/v1/groundtone/releases/rollback", {"reason": "bench"})
        wanted = "rag"
    changed = time.perf_counter()
    found = answered_by(address)
    if found != wanted:
        sys.exit(f"{found} answered after the switch to {wanted}")
    return (changed - began) * 1e3, (time.perf_counter() - began) * 1e3


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rate", type=float, default=200, help="requests a second, half of them streamed")
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--streams", type=int, default=50, help="streams that are open all the time")
    options = parser.parse_args()
    # What was started is stopped, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    subprocess.run(["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "load"], check=True, cwd=ROOT)
    load = str(Path(options.binary).parent / "examples" / "load")
    with tempfile.TemporaryDirectory() as folder:
        started = [Running([load, "mock"], stdout=subprocess.PIPE)]
        try:
            mock = f"http://127.0.0.1:{started[0].process.stdout.readline().strip()}"
            server, address = start(options.binary, Path(folder), mock)
            started.append(server)
            url = ["--url", f"{address}/v1/chat/completions", "--model", "shop"]
            hold = subprocess.Popen([load, "hold", *url, "--count", str(options.streams)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            opened = int(hold.stdout.readline())
            fire = [load, "fire", *url, "--rate", str(options.rate / 2), "--seconds", str(options.seconds)]
            firing = [subprocess.Popen([*fire, "--stream", kind], stdout=subprocess.PIPE, text=True) for kind in ("0", "1")]
            changed, effective = [], []
            while any(process.poll() is None for process in firing):
                took = switch(address, len(changed))
                changed.append(took[0])
                effective.append(took[1])
                time.sleep(1)
            whole, streamed = (json.loads(process.stdout.read()) for process in firing)
            hold.stdin.close()
            cut = int(hold.stdout.read())
            hold.wait(timeout=60)
        finally:
            for running in reversed(started):
                running.stop()
    spread = lambda values: {"median": statistics.median(values), "max": max(values)}
    report = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "load_average": os.getloadavg()[0],
        "requests": whole["requests"] + streamed["requests"],
        "failed": whole["failed"] + streamed["failed"],
        "open_streams": opened,
        "cut_streams": cut,
        "switches": len(changed),
        "switch_ms": spread(changed),
        "effective_ms": spread(effective),
        "whole": whole,
        "streamed": streamed,
    }
    print(json.dumps(report))
    sys.exit(0 if report["failed"] == 0 and cut == 0 else 1)


if __name__ == "__main__":
    main()
