"""Measures ingestion. Each part prints one JSON line; `--parts` chooses.

    ./gt bench ingest --corpus FOLDER_OF_MARKDOWN [--parts null,big,latency,local,sync,peers,kill]

null     MB/s of Markdown into chunks, with an instant embedder and a store that keeps nothing
big      peak memory for one text file of --megabytes, with the embedder and the store of `null`
latency  share of a remote embedder's ceiling (64 texts a call, 4 calls at once, 100 ms each)
local    share of the local embedder's own throughput on the same texts
sync     10,000 documents: first run, no-op run, one percent changed, through the real binary
peers    LangChain and LlamaIndex beside us: one corpus, one mock endpoint of --latency ms a call, their own local Qdrant; first run, no-op run, one percent changed.
         Installs them with pip into the cache the first time. The time of a run is without importing their modules; ours has the start of the process in it
kill     kill -9 at random instants of an ingest, then a run to the end and fsck
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SEED = 20261125


def run(command, **options):
    began = time.time()
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{command}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]), time.time() - began


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}}), flush=True)


def environment(**more):
    return {**os.environ, "GROUNDTONE_OFFLINE": "1", **more}


def pipeline(arguments, mode, *rest, what=None):
    target = Path(arguments.binary).parent
    result, _ = run([str(target / "examples/pipeline"), mode, what or str(arguments.corpus), *rest], env=environment(GROUNDTONE_MODELS_DIRECTORY=arguments.models))
    report = result.pop("report")
    say(mode, **result, documents=report["found"], chunks=report["chunks"], megabytes=report["bytes"] / 1e6, stages=report["stages"])


def make_documents(folder, count):
    """Short pages, so that the embedder does not take all day: the store and the ledger are what is measured."""
    for number in range(count):
        place = folder / f"shelf-{number // 500}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"part-{number}.md").write_text(f"# Part {number}\n\nPart {number} fits model {number % 97} and costs {number % 51} euro.\n")


def sync(arguments):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = folder / "documents"
        make_documents(documents, arguments.documents)
        command = [arguments.binary, "ingest", str(documents), "--data", str(folder / "data"), "--json"]
        for step in ("first run", "no-op", "1 % changed", "no-op again"):
            if step == "1 % changed":
                for number in random.Random(SEED).sample(range(arguments.documents), arguments.documents // 100):
                    page = documents / f"shelf-{number // 500}" / f"part-{number}.md"
                    page.write_text(page.read_text() + "\nIt was changed.\n")
            report, seconds = run(command, env=environment(), cwd=folder)
            keys = ("new", "changed", "unchanged", "chunks", "embedded", "embed_calls")
            say("sync", step=step, seconds=seconds, **{key: report[key] for key in keys}, stages=report["stages"])


# Versions that were measured; Python 3.11.
PEERS = [
    "llama-index-core==0.14.25",
    "llama-index-vector-stores-qdrant==0.10.4",
    "llama-index-embeddings-openai-like==0.4.0",
    "langchain==1.4.7",
    "langchain-community==0.4.2",
    "langchain-openai==1.7.3",
    "langchain-qdrant==1.1.0",
    "langchain-text-splitters==1.1.3",
]
# Texts in one call, for all three.
BATCH = 64


def install_peers():
    cache = Path(os.environ.get("GROUNDTONE_CACHE", Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "groundtone"))
    place = cache / "python/ingest-peers-1"
    if not place.exists():
        making = place.with_suffix(".tmp")
        shutil.rmtree(making, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(making), *PEERS], check=True)
        making.rename(place)
    return place


def measured(command, **options):
    """The last line as JSON, wall time, and the process's own peak memory in MB."""
    with tempfile.TemporaryFile("w+") as errors:
        began = time.time()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, **options)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.time() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            errors.seek(0)
            sys.exit(f"{command}: {errors.read()[-3000:]}")
        return json.loads(output.strip().splitlines()[-1]), seconds, usage.ru_maxrss / 1024


def peers(arguments):
    packages, here = install_peers(), Path(__file__).parent / "peers"
    server = subprocess.Popen([sys.executable, str(here / "endpoint.py"), str(arguments.latency)], stdout=subprocess.PIPE, text=True)
    try:
        base_url = f"http://127.0.0.1:{int(server.stdout.readline())}/v1"
        with tempfile.TemporaryDirectory() as name:
            for system in ("groundtone", "langchain", "llamaindex"):
                # Each counts alone: what one has asked for is new to the next.
                compare(arguments, system, Path(name) / system, base_url, packages, here)
    finally:
        server.kill()
        server.wait()


def compare(arguments, system, state, base_url, packages, here):
    documents = state / "documents"
    shutil.copytree(arguments.corpus, documents)
    for path in documents.rglob("*"):
        if path.is_file() and path.suffix != ".md":
            path.unlink()
        elif path.is_file():
            # So that no two systems send the same text.
            path.write_text(f"{path.read_text()}\n\nRead by {system}.\n")
    (state / "groundtone.toml").write_text(
        f'[embedder]\nkind = "openai"\nurl = "{base_url}"\nmodel = "mock"\ndimensions = 64\nmax_tokens = 8191\nbatch = {BATCH}\n[sources]\n'
    )
    pages = sorted(documents.rglob("*.md"))
    for step in ("first run", "no-op", "1 % changed"):
        changed = random.Random(SEED).sample(pages, max(1, len(pages) // 100)) if step == "1 % changed" else []
        for page in changed:
            page.write_text(page.read_text() + "\nIt was changed.\n")
        if system == "groundtone":
            command = [arguments.binary, "ingest", str(documents), "--data", str(state / "data"), "--config", str(state / "groundtone.toml"), "--json"]
            result, wall, peak = measured(command, env=environment(), cwd=state)
            result = {"seconds": wall, "peak_rss_mb": peak, "chunks": result["chunks"]}
        else:
            command = [sys.executable, str(here / f"run_{system}.py"), str(documents), base_url, str(state), str(BATCH)]
            result, wall, _ = measured(command, env=environment(PYTHONPATH=str(packages), ANONYMIZED_TELEMETRY="False"))
            result.pop("report", None)
            result["seconds_with_imports"] = wall
        with urllib.request.urlopen(f"{base_url}/stats") as answer:
            counts = json.loads(answer.read())
        say("peers", system=system, step=step, pages=len(pages), changed_pages=len(changed), **result, **counts)


def kill(arguments):
    rng = random.Random(SEED)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents = folder / "documents"
        make_documents(documents, 1500)
        command = [arguments.binary, "ingest", str(documents), "--data", str(folder / "data"), "--json"]
        slowest_resume = 0.0
        for _ in range(arguments.kills):
            for number in rng.sample(range(1500), 40):
                page = documents / f"shelf-{number // 500}" / f"part-{number}.md"
                page.write_text(f"# Part {number}\n\nPart {number} costs {rng.randrange(1000)} euro since today.\n")
            process = subprocess.Popen(command, env=environment(), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(rng.uniform(0.05, arguments.longest))
            process.kill()
            process.wait()
        began = time.time()
        report, _ = run(command, env=environment(), cwd=folder)
        slowest_resume = max(slowest_resume, time.time() - began - report["seconds"])
        again, _ = run(command, env=environment(), cwd=folder)
        drift, _ = run([arguments.binary, "fsck", "--data", str(folder / "data"), "--json"], env=environment(), cwd=folder)
        say("kill", kills=arguments.kills, documents=report["found"], unchanged_afterwards=again["unchanged"], orphans=drift["orphans"],
            incomplete=len(drift["incomplete"]), points=drift["points"], seconds_before_resuming=slowest_resume)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--corpus", type=Path, default=ROOT / "samples/kettlewren/documents")
    parser.add_argument("--models", default=str(Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "groundtone/models"))
    parser.add_argument("--parts", default="null,big,latency,local,sync,kill")
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--megabytes", type=int, default=1000, help="size of the file of `big`")
    parser.add_argument("--latency", type=float, default=30, help="milliseconds of a call in `peers`")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--longest", type=float, default=3.0, help="latest instant of a kill, in seconds after the start")
    arguments = parser.parse_args()
    parts = arguments.parts.split(",")
    if {"null", "big", "latency", "local"} & set(parts):
        subprocess.run(["cargo", "build", "--release", "--locked", "--workspace", "--examples", "--quiet"], cwd=ROOT, check=True)
    say("machine", cores=os.cpu_count(), load_average=os.getloadavg()[0])
    for part in parts:
        if part == "null":
            pipeline(arguments, "null")
        elif part == "big":
            pipeline(arguments, "big", what=str(arguments.megabytes))
        elif part == "latency":
            pipeline(arguments, "latency", "100")
        elif part == "local":
            pipeline(arguments, "local")
        elif part == "sync":
            sync(arguments)
        elif part == "peers":
            peers(arguments)
        elif part == "kill":
            kill(arguments)
        else:
            sys.exit(f"there is no part `{part}`")


if __name__ == "__main__":
    main()
