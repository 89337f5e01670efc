"""The sample brand's own adapter: makes it, and asks with and without it.

    ./gt bench adapter [--make FOLDER] [--ask] [--epochs 2] [--work FOLDER]

--make   builds rows from the 120 voice examples with the production retriever and prompt, trains on them with `groundtone tune`, and writes the adapter (as PEFT saves one) and the
         manifest of its rows to FOLDER, which must not be there; about a quarter of an hour on two cores. The demo offers what is in samples/kettlewren/adapter when it is compiled
--ask    the 40 held-out questions (questions.jsonl and held-out.jsonl, 8 of them without an answer in the documents) through the demo, untuned (rag) and tuned (tuned-rag)
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples/kettlewren"
BASE = "smollm2-135m-instruct-q4_1"
# Rank 8 in the upper third of the layers: 3.3 MB.
SETTINGS = """[assistant]
name = "kettlewren"
system = {system}
[tuning]
base_models = ["{base}={base}"]
rank = 8
alpha = 16
trained_layers = 10
"""


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}}, ensure_ascii=False), flush=True)


def environment(folder):
    return {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data")}


def run(binary, folder, *arguments):
    done = subprocess.run([binary, *arguments, "--json"], capture_output=True, text=True, cwd=folder, env=environment(folder))
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Server:
    """`groundtone COMMAND` on a free port, for as long as the block runs."""

    def __init__(self, binary, folder, command):
        self.log = (folder / f"{command}.log").open("a")
        self.process = subprocess.Popen([binary, command, "--port", "0"], cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=self.log, text=True)

    def __enter__(self):
        for line in self.process.stdout:
            if "http://" in line:
                return self
        sys.exit(f"the server did not start; see {self.log.name}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()
        self.log.close()


def make(arguments, folder):
    """The rows are built over the documents as the demo ingests them, and with its prompt."""
    binary, target = arguments.binary, arguments.make.resolve()
    if target.exists():
        sys.exit(f"{target} is there already")
    system = (SAMPLE / "voice/system-prompt.txt").read_text().strip()
    (folder / "groundtone.toml").write_text(SETTINGS.format(system=json.dumps(system), base=BASE))
    run(binary, folder, "ingest", str(SAMPLE / "documents"))
    shutil.copy(SAMPLE / "voice/voice-examples.jsonl", folder / "voice-examples.jsonl")
    built = run(binary, folder, "dataset", "build", "voice-examples.jsonl", "--out", "voice.jsonl", "--overwrite", "--oracle-share", "1", "--seed", "1")
    say("rows", **{key: built["counts"][key] for key in ("rows", "kinds", "dropped", "rejected", "with_oracle", "cited")})
    began = time.monotonic()
    with Server(binary, folder, "serve"):
        job = run(binary, folder, "tune", "create", "voice.jsonl", "--model", BASE, "--epochs", str(arguments.epochs), "--batch-size", "4", "--seed", "7",
                  "--learning-rate-multiplier", "2", "--suffix", "voice")
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(2)
            job = next(each for each in run(binary, folder, "tune", "list") if each["id"] == job["id"])
    if job["status"] != "succeeded":
        sys.exit(f"the training {job['status']}: {job.get('error')}")
    run(binary, folder, "tune", "export", job["fine_tuned_model"], "--format", "peft", "--to", str(target))
    for kept in ("voice.manifest.json", "voice.rows.jsonl"):
        shutil.copy(folder / kept, target / kept)
    seconds = time.monotonic() - began
    size = sum(file.stat().st_size for file in target.iterdir())
    say("trained", tokens=job["trained_tokens"], epochs=arguments.epochs, seconds=seconds, tokens_per_second=job["trained_tokens"] / seconds, megabytes=size / 1e6, load_average=os.getloadavg()[0])


def ask(arguments, folder):
    (folder / "groundtone.toml").write_text('[assistant]\nname = "kettlewren"\n')
    questions = [{**json.loads(line), "answerable": True} for line in (SAMPLE / "questions.jsonl").read_text().splitlines()]
    questions += [json.loads(line) for line in (SAMPLE / "held-out.jsonl").read_text().splitlines()]
    (folder / "set.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in questions))
    with Server(arguments.binary, folder, "demo"):
        report = run(arguments.binary, folder, "eval", "run", "--set", "set.jsonl", "--arms", "rag,tuned-rag", "--voice", str(SAMPLE / "voice/rules.toml"),
                     "--train", str(SAMPLE / "voice/voice-examples.jsonl"), "--drop-leaked", "--parallel", "1", "--out", str(folder / "report"), "--name", "kettlewren")
    rounded = lambda metric: None if metric is None else [None if metric[key] is None else round(metric[key], 3) for key in ("value", "low", "high")]
    for arm in report["arms"]:
        say(arm["name"], rows=report["set"]["rows"], metrics={name: rounded(metric) for name, metric in arm["metrics"].items()}, latency=arm["latency"], tokens=arm["tokens"])
    say("verdict", **report["verdict"], pairs=report["pairs"] if arguments.pairs else None, report=str(folder / "report/report.html"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--ask", action="store_true")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", action="store_true", help="print how the arms compare, too")
    parser.add_argument("--work", type=Path, help="keep index, rows and report here")
    arguments = parser.parse_args()
    if not arguments.make and not arguments.ask:
        parser.error("--make FOLDER, --ask or both")
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        for part, folder in ((make, work / "make"), (ask, work / "ask")):
            if part is make and not arguments.make or part is ask and not arguments.ask:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            part(arguments, folder)


if __name__ == "__main__":
    main()
