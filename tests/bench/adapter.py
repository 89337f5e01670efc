"""The sample brand's own adapter: makes it, and asks with and without it.

    ./gt bench adapter [--make FOLDER] [--ask FOLDER] [--epochs 2] [--work FOLDER]

--make   builds rows from the 120 voice examples with the production retriever and prompt, trains on them with `groundtone tune`, and writes the adapter (as PEFT saves one) and the
         manifest of its rows to FOLDER, which must not be there; about a quarter of an hour on two cores
--ask    the 40 held-out questions (questions.jsonl and held-out.jsonl, 8 of them without an answer in the documents) through a server, untuned (rag) and tuned (tuned-rag: the adapter in FOLDER)
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from decide import BASE, Server, run, write

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples/kettlewren"
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


def settings():
    """The demo's own."""
    return SETTINGS.format(system=json.dumps((SAMPLE / "voice/system-prompt.txt").read_text().strip()), base=BASE)


def make(arguments, folder):
    """The rows are built over the documents as the demo ingests them, and with its prompt."""
    binary, target = arguments.binary, arguments.make.resolve()
    if target.exists():
        sys.exit(f"{target} is there already")
    (folder / "groundtone.toml").write_text(settings())
    run(binary, folder, "ingest", str(SAMPLE / "documents"))
    shutil.copy(SAMPLE / "voice/voice-examples.jsonl", folder / "voice-examples.jsonl")
    built = run(binary, folder, "dataset", "build", "voice-examples.jsonl", "--out", "voice.jsonl", "--overwrite", "--oracle-share", "1", "--seed", "1")
    say("rows", **{key: built["counts"][key] for key in ("rows", "kinds", "dropped", "rejected", "with_oracle", "cited")})
    began = time.monotonic()
    with Server(binary, folder):
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
    """Both as variants of one server, so that they share documents, prompt and base."""
    binary = arguments.binary
    (folder / "groundtone.toml").write_text(settings())
    run(binary, folder, "ingest", str(SAMPLE / "documents"))
    model = run(binary, folder, "tune", "import-adapter", str(arguments.ask.resolve()), "--name", "voice")["id"]
    (folder / "groundtone.toml").write_text(settings() + f"[variants.tuned-rag]\nmodel = {json.dumps(model)}\n")
    questions = [{**json.loads(line), "answerable": True} for line in (SAMPLE / "questions.jsonl").read_text().splitlines()]
    questions += [json.loads(line) for line in (SAMPLE / "held-out.jsonl").read_text().splitlines()]
    write(folder / "set.jsonl", questions)
    with Server(binary, folder):
        report = run(binary, folder, "eval", "run", "--set", "set.jsonl", "--arms", "rag,tuned-rag", "--voice", str(SAMPLE / "voice/rules.toml"),
                     "--train", str(SAMPLE / "voice/voice-examples.jsonl"), "--drop-leaked", "--parallel", "1", "--out", str(folder / "report"), "--name", "kettlewren")
    rounded = lambda metric: None if metric is None else [None if metric[key] is None else round(metric[key], 3) for key in ("value", "low", "high")]
    for arm in report["arms"]:
        say(arm["name"], rows=report["set"]["rows"], metrics={name: rounded(metric) for name, metric in arm["metrics"].items()}, latency=arm["latency"], tokens=arm["tokens"])
    say("verdict", **report["verdict"], pairs=report["pairs"] if arguments.pairs else None, report=str(folder / "report/report.html"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--ask", type=Path, metavar="FOLDER", help="of an adapter as PEFT saves one")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--pairs", action="store_true", help="print how the arms compare, too")
    parser.add_argument("--work", type=Path, help="keep index, rows and report here")
    arguments = parser.parse_args()
    if not arguments.make and not arguments.ask:
        parser.error("--make FOLDER, --ask FOLDER or both")
    with tempfile.TemporaryDirectory() as temporary:
        work = (arguments.work or Path(temporary)).resolve()
        for part, folder in ((make, work / "make"), (ask, work / "ask")):
            if part is make and not arguments.make or part is ask and not arguments.ask:
                continue
            folder.mkdir(parents=True, exist_ok=True)
            part(arguments, folder)


if __name__ == "__main__":
    main()
