"""Measures the dataset builder. Each part prints one JSON line; `--parts` chooses.

    ./gt bench dataset [--parts parity,build,kill] [--questions 1000] [--rows 50000] [--chunks 100000] [--kills 5] [--folder FOLDER] [--embedder words]

parity   bytes of each row's prompt against what serving sends upstream for the same question, captured at a mock upstream
build    rows/s and memory over time of a build over a large index
kill     kill -9 at random instants of the same build, then a run to the end: the files must be the same

The index is made first: with the local embedder 100,000 chunks are a quarter of an hour to half an hour on two cores. With --folder it is kept, and used by the next run.
--embedder words takes the vectors from an endpoint that adds up hashed words (peers/endpoint.py): then index and builder are measured, and not the embedder.
"""

import argparse
import hashlib
import http.server
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path

from decide import environment, run

SEED = 20261125
WORDS = "alder birch cedar elder hazel linden maple rowan spruce willow kettle flask grinder teapot scale burr lid seal base cord handle filter drawer motor".split()


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}}), flush=True)


class Upstream(http.server.BaseHTTPRequestHandler):
    """A chat server that answers `ok` and keeps the bytes of every request."""

    bodies = []
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        Upstream.bodies.append(self.rfile.read(int(self.headers["content-length"])))
        chunk = lambda delta, finish: "data: " + json.dumps({"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}) + "\n\n"
        body = (chunk({"content": "ok"}, None) + chunk({}, "stop") + "data: [DONE]\n\n").encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def name(number):
    return f"{WORDS[number % 24].capitalize()}{WORDS[number // 24 % 24].capitalize()} {number}"


def word_vectors(port):
    """Settings of an embedder that is peers/endpoint.py with `words`."""
    return f'[embedder]\nkind = "openai"\nurl = "http://127.0.0.1:{port}/v1"\nmodel = "words"\ndimensions = 64\nmax_tokens = 8191\nbatch = 64\n'


def make_settings(folder, port, embedder):
    """Settings that point at the mock upstream, and at the endpoint of vectors where there is one."""
    text = f'[chat]\nkind = "openai"\nmodel = "gpt-4o-mini"\nurl = "http://127.0.0.1:{port}/v1"\n[gate]\nthreshold = 0.0\n[retrieval]\ntop_k = 4\n'
    if embedder:
        text += word_vectors(embedder)
    (folder / "groundtone.toml").write_text(text)


def make_shop(folder, chunks):
    """One short document for each chunk."""
    for number in range(chunks):
        place = folder / "documents" / f"shelf-{number // 1000}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"part-{number}.md").write_text(f"# {name(number)}\n\nThe {name(number)} fits model {number % 97} and costs {number % 991} euro.\n")


def make_examples(path, rows, chunks):
    rng = random.Random(SEED)
    with path.open("w") as out:
        for row in range(rows):
            number = rng.randrange(chunks)
            example = {"id": f"e{row}", "question": f"What does the {name(number)} cost? ({row})", "answer": f"The {name(number)} costs {number % 991} euro.",
                       "documents": [f"shelf-{number // 1000}/part-{number}.md"]}
            out.write(json.dumps(example) + "\n")


def messages(text):
    """The JSON text of `messages` in a request or a row, as it stands there."""
    start = text.index('"messages":') + len('"messages":')
    value, end = json.JSONDecoder().raw_decode(text[start:])
    return value, text[start:start + end]


def parity(arguments, folder):
    run(arguments.binary, folder, "dataset", "build", "parity.jsonl", "--out", "parity-rows.jsonl", "--overwrite")
    server = subprocess.Popen([arguments.binary, "serve", "--port", "0"], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    same = other = 0
    try:
        line = next((line for line in server.stdout if "http://" in line), None)
        if line is None:
            sys.exit("the server did not start")
        address = next(word for word in line.split() if word.startswith("http://")).rstrip("/")
        for example, row in zip((folder / "parity.jsonl").open(), (folder / "parity-rows.jsonl").open()):
            body = {"model": "groundtone", "messages": [{"role": "user", "content": json.loads(example)["question"]}]}
            request = urllib.request.Request(f"{address}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"})
            urllib.request.urlopen(request, timeout=60).read()
            _, sent = messages(Upstream.bodies[-1].decode())
            built, text = messages(row)
            answer = "," + json.dumps(built[-1], ensure_ascii=False, separators=(",", ":")) + "]"
            # The replies of the prompt are read and not learned.
            if text.replace(',"weight":0', "") == sent[:-1] + answer:
                same += 1
            else:
                other += 1
    finally:
        server.terminate()
        server.wait()
    say("parity", questions=same + other, wanted=arguments.questions, equal=same, different=other)


FLAGS = ["--snippets", "4", "--oracle-share", "0.8", "--no-answer-share", "0.15", "--order", "shuffled", "--seed", "7"]


def resident_mb(pid):
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def start_build(arguments, folder, out, *more):
    """A build whose report goes to a file: a pipe that nobody reads would stop it."""
    command = [arguments.binary, "dataset", "build", "examples.jsonl", "--out", out, *FLAGS, *more, "--json"]
    with (folder / "report.json").open("w") as report, (folder / "build.log").open("w") as log:
        return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=report, stderr=log)


def report_of(folder, process):
    if process.wait() != 0:
        sys.exit((folder / "build.log").read_text()[-2000:])
    return json.loads((folder / "report.json").read_text().strip().splitlines()[-1])


def build(arguments, folder):
    process = start_build(arguments, folder, "whole.jsonl", "--overwrite")
    memory = []
    began = time.time()
    while process.poll() is None:
        memory.append((time.time() - began, resident_mb(process.pid)))
        time.sleep(0.5)
    report = report_of(folder, process)
    arguments.longest = arguments.longest or 2 * report["seconds"] / (arguments.kills + 1)
    # The first fifth is loading; then memory should not grow any more.
    later = [used for at, used in memory if at > memory[-1][0] / 5] or [0.0]
    say("build", rows=report["counts"]["rows"], kinds=report["counts"]["kinds"], seconds=report["seconds"], rows_per_second=report["counts"]["rows"] / report["seconds"],
        rss_mb_at_a_fifth=later[0], rss_mb_highest=max(later), rss_mb_at_the_end=later[-1], chunks=arguments.chunks, embedder=arguments.embedder, load=os.getloadavg()[0])


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def kill(arguments, folder):
    if not (folder / "whole.manifest.json").exists():
        sys.exit("the part `kill` compares with the part `build`: run both")
    for left in folder.glob("killed.*"):
        left.unlink()
    rng = random.Random(SEED)
    kills = 0
    while kills < arguments.kills:
        process = start_build(arguments, folder, "killed.jsonl")
        time.sleep(rng.uniform(1.0, max(arguments.longest or 20.0, 1.5)))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    # Where the last one came to its end before it could be killed, this is its report.
    report = report_of(folder, process if kills < arguments.kills else start_build(arguments, folder, "killed.jsonl"))
    same = all(digest(folder / f"whole.{ending}") == digest(folder / f"killed.{ending}") for ending in ("jsonl", "rows.jsonl"))
    say("kill", kills=kills, resumed=report["resumed"], identical=same)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--parts", default="parity,build,kill")
    parser.add_argument("--questions", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--chunks", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--longest", type=float, help="latest instant of a kill, in seconds after the start; spread over the whole build where not given")
    parser.add_argument("--folder", type=Path, help="keep index and files here, and use the index that is here")
    parser.add_argument("--embedder", choices=["local", "words"], default="local")
    arguments = parser.parse_args()
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    vectors = None
    if arguments.embedder == "words":
        endpoint = Path(__file__).parent / "peers/endpoint.py"
        vectors = subprocess.Popen([sys.executable, str(endpoint), "0", "words"], stdout=subprocess.PIPE, text=True)
    try:
        measure(arguments, upstream.server_port, vectors and int(vectors.stdout.readline()))
    finally:
        if vectors:
            vectors.kill()
            vectors.wait()


def measure(arguments, port, vectors):
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make_settings(folder, port, vectors)
        if not (folder / "data").exists():
            make_shop(folder, arguments.chunks)
            say("ingest", seconds=run(arguments.binary, folder, "ingest", "documents")["seconds"], chunks=arguments.chunks, embedder=arguments.embedder)
        make_examples(folder / "examples.jsonl", arguments.rows, arguments.chunks)
        make_examples(folder / "parity.jsonl", arguments.questions, arguments.chunks)
        say("machine", cores=os.cpu_count(), load_average=os.getloadavg()[0])
        for part in arguments.parts.split(","):
            {"parity": parity, "build": build, "kill": kill}[part](arguments, folder)


if __name__ == "__main__":
    main()
