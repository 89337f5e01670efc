"""What Groundtone adds to a call of a model server, wire to wire, against the same server without it; and beside other proxies.

    ./gt bench proxy                                  # small: 200 requests/s for 3 s, 200 streams
    ./gt bench proxy --rate 500 --seconds 20 --rounds 5 --streams 5000 --peers
    ./gt bench proxy --rate 100 --seconds 20 --rounds 3 --chunks 100000     # ingests them first, some minutes
    ./gt bench proxy --rate 100 --seconds 20 --rounds 3 --index FOLDER      # what `dataset --folder FOLDER --embedder words` has left: 100,000 chunks

The model server is a mock that answers at once (Nagle off, header and body in one write), so a figure is the proxy's own cost. `pass-through` is a variant without documents,
`rag` searches by dense vectors and BM25 over five documents and --chunks more; the question is always the same, so its vector comes from the cache of questions.
Direct and proxied runs take turns; `added` is the difference of the medians of the rounds.
"""

import argparse
import json
import os
import platform
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from dataset import word_vectors

ROOT = Path(__file__).resolve().parents[2]
# LiteLLM: the newest whose own packages could be had; without prisma some of its errors are a bare 500.
PEERS = {"litellm": ["litellm[proxy]==1.108.7", "prisma==0.15.0"], "hayhooks": ["hayhooks==2.1.0", "haystack-ai==3.4.0"]}
DOCUMENTS = {
    "returns.md": "# Returns\n\nYou can send your grinder back within 45 days of delivery.\n",
    "warranty.md": "# Warranty\n\nThe burr set is covered for 12 years.\n",
    "hours.md": "# Hours\n\nThe workshop in Graz opens at nine on Saturdays.\n",
    "prices.md": "# Prices\n\nThe Alder hand grinder costs 89 euro.\n",
    "about.md": "# About\n\nWe have made grinders in Graz since 1987.\n",
}
HAYHOOKS_PIPELINE = '''from haystack.components.generators.chat import OpenAIChatGenerator
from haystack import Pipeline
from haystack.dataclasses import ChatMessage
from haystack.utils import Secret
from hayhooks import BasePipelineWrapper, async_streaming_generator

class PipelineWrapper(BasePipelineWrapper):
    def setup(self):
        self.pipeline = Pipeline()
        self.pipeline.add_component("llm", OpenAIChatGenerator(api_key=Secret.from_token("unused"), api_base_url="{url}", model="mock"))

    async def run_chat_completion_async(self, model, messages, body):
        found = [ChatMessage.from_user(m["content"]) for m in messages]
        return async_streaming_generator(pipeline=self.pipeline, pipeline_run_args={{"llm": {{"messages": found}}}})
'''


class Running:
    """A process of ours, stopped by its id."""

    def __init__(self, arguments, **options):
        self.process = subprocess.Popen(arguments, text=True, **options)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def rss_kilobytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1])
    return None


def fire(load, url, model, **options):
    arguments = [load, "fire", "--url", url, "--model", model]
    for name, value in options.items():
        arguments += [f"--{name}", str(value)]
    return json.loads(subprocess.run(arguments, check=True, capture_output=True, text=True).stdout)


def filler(number):
    """A short document about something else."""
    return f"# Part {number}\n\nPart {number} fits model {number % 97}, comes in {number % 13} colours and costs {number % 51} euro in Graz.\n"


def groundtone(binary, folder, mock, chunks=0, index=None, vectors=None):
    """Ingests the five documents, and as many more of one chunk each as wanted, and serves them, or the index that is given; gives the process and its address."""
    documents = folder / "documents"
    documents.mkdir()
    for name, text in DOCUMENTS.items():
        (documents / name).write_text(text)
    for number in range(chunks):
        shelf = documents / f"shelf-{number // 1000}"
        shelf.mkdir(exist_ok=True)
        (shelf / f"part-{number}.md").write_text(filler(number))
    settings = f'[chat]\nkind = "openai"\nmodel = "mock"\nurl = "{mock}/v1"\ncontext_tokens = 8000\nremote_parallel = 20000\n[gate]\nthreshold = 0.0\n'
    settings += '[assistant]\nname = "shop"\n[server]\nrequest_timeout_seconds = 3600\n[variants.prompted]\nsystem = "You answer for a shop."\n'
    if vectors:
        settings += word_vectors(vectors)
    (folder / "groundtone.toml").write_text(settings)
    data = index / "data" if index else folder / "data"
    environment = {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(data)}
    if not index:
        subprocess.run([binary, "ingest", str(documents)], check=True, cwd=folder, env=environment, capture_output=True)
    running = Running([binary, "serve", "--port", "0"], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    for line in running.process.stdout:
        if "http://" in line:
            return running, line.split("http://")[1].split()[0].rstrip("/")
    sys.exit("groundtone did not start")


def installed(name):
    """The peer's packages in a folder of their own."""
    cache = Path(os.environ.get("GROUNDTONE_CACHE", Path.home() / ".cache/groundtone")) / "peers" / f"{name}-{PEERS[name][0].split('==')[1]}"
    if not cache.exists():
        print(f"installing {' '.join(PEERS[name])}", file=sys.stderr)
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", f"{cache}.tmp", *PEERS[name]]
        subprocess.run(command, check=True)
        Path(f"{cache}.tmp").rename(cache)
    return cache


def version(cache, package):
    found = sorted(cache.glob(f"{package}-*.dist-info"))
    return found[0].name.removesuffix(".dist-info").split("-")[1] if found else "?"


def wait_until_served(running, log, url, seconds=180):
    deadline = time.time() + seconds
    while time.time() < deadline:
        if running.process.poll() is not None:
            sys.exit(f"{url} ended: {Path(log.name).read_text()[-2000:]}")
        try:
            urllib.request.urlopen(url, timeout=2)
            return
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.5)
    sys.exit(f"{url} did not come up")


def free_port():
    import socket

    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def litellm_proxy(folder, config, **variables):
    """LiteLLM's proxy with a configuration; gives the process, its address, its version and its key."""
    cache, port, key = installed("litellm"), free_port(), "sk-bench-0123456789abcdef"
    (folder / "litellm.json").write_text(json.dumps(config))
    environment = {**os.environ, "PYTHONPATH": str(cache), "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": key, "LITELLM_LOG": "ERROR", **variables}
    arguments = [sys.executable, "-c", "from litellm import run_server; run_server()", "--config", str(folder / "litellm.json"), "--host", "127.0.0.1", "--port", str(port)]
    log = open(folder / "litellm.log", "w")
    running = Running(arguments, env=environment, stdout=log, stderr=log, cwd=folder)
    wait_until_served(running, log, f"http://127.0.0.1:{port}/health/liveliness")
    return running, f"http://127.0.0.1:{port}", version(cache, "litellm"), key


def litellm(folder, mock):
    config = {"model_list": [{"model_name": "shop", "litellm_params": {"model": "openai/mock", "api_base": f"{mock}/v1", "api_key": "unused"}}]}
    running, address, found, key = litellm_proxy(folder, config)
    return running, f"{address}/v1/chat/completions", found, {"key": key}


def hayhooks(folder, mock):
    cache, port = installed("hayhooks"), free_port()
    pipeline = folder / "pipelines" / "shop"
    pipeline.mkdir(parents=True)
    (pipeline / "pipeline_wrapper.py").write_text(HAYHOOKS_PIPELINE.format(url=f"{mock}/v1"))
    environment = {**os.environ, "PYTHONPATH": str(cache), "HAYSTACK_TELEMETRY_ENABLED": "False", "HAYHOOKS_PIPELINES_DIR": str(folder / "pipelines")}
    arguments = [sys.executable, "-c", "from hayhooks.cli import hayhooks_cli; hayhooks_cli()", "run", "--host", "127.0.0.1", "--port", str(port)]
    log = open(folder / "hayhooks.log", "w")
    running = Running(arguments, env=environment, stdout=log, stderr=log, cwd=folder)
    wait_until_served(running, log, f"http://127.0.0.1:{port}/status")
    return running, f"http://127.0.0.1:{port}/v1/chat/completions", version(cache, "hayhooks"), {}


def median_of(rounds, *path):
    def value(result):
        for name in path:
            result = result[name]
        return result

    return statistics.median(value(result) for result in rounds)


def compare(load, targets, options):
    """All targets in turn, round by round."""
    found = {name: {"whole": [], "streamed": []} for name in targets}
    for _ in range(options.rounds):
        for name, (url, model, extra) in targets.items():
            rate = options.rate if name in ("direct", "pass-through", "rag") else options.peer_rate
            for kind, stream in (("whole", 0), ("streamed", 1)):
                found[name][kind].append(fire(load, url, model, rate=rate, seconds=options.seconds, stream=stream, **extra))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--rate", type=float, default=200, help="requests a second")
    parser.add_argument("--peer-rate", type=float, default=20, help="requests a second for the peers, which may not stand more")
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--streams", type=int, default=200, help="streams that are open at the same time")
    parser.add_argument("--connections", type=int, default=32, help="connections of the throughput run")
    parser.add_argument("--chunks", type=int, default=0, help="further chunks in the index")
    parser.add_argument("--index", type=lambda name: Path(name).resolve(), help="the folder of a `dataset --embedder words` instead of the five documents")
    parser.add_argument("--peers", action="store_true", help="also LiteLLM and Hayhooks, installed from PyPI")
    options = parser.parse_args()
    # What was started is stopped, however this ends.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    build = ["cargo", "build", "--release", "--locked", "--quiet", "--workspace", "--example", "load"]
    subprocess.run(build, check=True, cwd=ROOT)
    load = str(Path(options.binary).parent / "examples" / "load")
    report = {"machine": f"{os.cpu_count()} cores, {platform.machine()}", "load_average": os.getloadavg()[0], "options": {k: v for k, v in vars(options).items() if k not in ("binary", "index")}}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        started = [Running([load, "mock"], stdout=subprocess.PIPE)]
        try:
            mock = f"http://127.0.0.1:{started[0].process.stdout.readline().strip()}"
            vectors = None
            if options.index:
                endpoint = [sys.executable, str(Path(__file__).parent / "peers/endpoint.py"), "0", "words"]
                started.append(Running(endpoint, stdout=subprocess.PIPE))
                vectors = int(started[-1].process.stdout.readline())
            server, address = groundtone(options.binary, folder, mock, options.chunks, options.index, vectors)
            started.append(server)
            own = f"http://{address}/v1/chat/completions"
            targets = {"direct": (f"{mock}/v1/chat/completions", "mock", {}), "pass-through": (own, "shop:prompted", {}), "rag": (own, "shop", {})}
            for start in (litellm, hayhooks) if options.peers else ():
                running, url, found, extra = start(folder, mock)
                started.append(running)
                targets[start.__name__] = (url, "shop", extra)
                report[f"{start.__name__}_version"] = found
            for url, model, extra in targets.values():
                fire(load, url, model, rate=20, seconds=1, stream=0, **extra)
            found = compare(load, targets, options)
            for name, kinds in found.items():
                report[name] = {kind: {"rounds": rounds} for kind, rounds in kinds.items()}
                report[name]["failed"] = sum(r["failed"] for rounds in kinds.values() for r in rounds)
                if name != "direct":
                    added = {}
                    for share in ("p50_ms", "p95_ms", "p99_ms"):
                        added[f"whole_{share}"] = median_of(kinds["whole"], "all", share) - median_of(found["direct"]["whole"], "all", share)
                        added[f"first_token_{share}"] = median_of(kinds["streamed"], "first", share) - median_of(found["direct"]["streamed"], "first", share)
                    report[name]["added"] = added
            for name, (url, model, extra) in targets.items():
                closed = fire(load, url, model, seconds=options.seconds, connections=options.connections, stream=0, **extra)
                report[name]["throughput_per_second"] = closed["per_second"]
            before = rss_kilobytes(server.process.pid)
            holder = subprocess.Popen([load, "hold", "--url", own, "--model", "shop:prompted", "--count", str(options.streams)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            opened = int(holder.stdout.readline())
            time.sleep(1)
            report["pass-through"]["open_streams"] = {"streams": opened, "rss_kb_each": (rss_kilobytes(server.process.pid) - before) / opened, "rss_kb_before": before}
            holder.stdin.close()
            holder.wait(timeout=60)
        finally:
            for running in reversed(started):
                running.stop()
    for name in ("direct", "pass-through", "rag", "litellm", "hayhooks"):
        if name in report:
            shown = {k: v for k, v in report[name].items() if k not in ("whole", "streamed")}
            whole = report[name]["whole"]["rounds"]
            print(f"{name:12} p50 {median_of(whole, 'all', 'p50_ms'):.2f} ms  p99 {median_of(whole, 'all', 'p99_ms'):.2f} ms  {json.dumps(shown)}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
