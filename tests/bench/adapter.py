"""Makes the sample brand's own adapter.

    ./gt bench adapter --out FOLDER [--epochs 1] [--work FOLDER]

Builds rows from the 120 voice examples, each three times with its sources in another order, with the production retriever and prompt, trains on them with `groundtone tune`, and writes
the adapter (as PEFT saves one), the manifest of its rows and what the training took to FOLDER, which must not be there. About half an hour on two cores.
`./gt bench decide --sets kettlewren` asks with and without it.
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

COPIES = 3
ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "samples/kettlewren"
# Rank 8 in the upper half of the layers: 4.6 MB.
SETTINGS = """[assistant]
name = "kettlewren"
system = {system}
[tuning]
base_models = ["{base}={base}"]
rank = 8
alpha = 16
trained_layers = 14
"""


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}}, ensure_ascii=False), flush=True)


def settings():
    """The demo's own."""
    return SETTINGS.format(system=json.dumps((SAMPLE / "voice/system-prompt.txt").read_text().strip()), base=BASE)


def make(arguments, folder):
    """The rows are built over the documents as the demo ingests them, and with its prompt."""
    binary, target = arguments.binary, arguments.out.resolve()
    if target.exists():
        sys.exit(f"{target} is there already")
    (folder / "groundtone.toml").write_text(settings())
    run(binary, folder, "ingest", str(SAMPLE / "documents"))
    # Where the answer stands is not to be learned: one and the same row has its sources in three orders.
    examples = [json.loads(line) for line in (SAMPLE / "voice/voice-examples.jsonl").read_text().splitlines()]
    write(folder / "voice-examples.jsonl", [{**row, "id": f"{row['id']}.{copy}"} for copy in range(1, COPIES + 1) for row in examples])
    built = run(binary, folder, "dataset", "build", "voice-examples.jsonl", "--out", "voice.jsonl", "--overwrite", "--oracle-share", "1", "--order", "shuffled", "--seed", "1")
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
    (target / "training.json").write_text(json.dumps({"tokens": job["trained_tokens"], "epochs": arguments.epochs, "seconds": round(seconds)}) + "\n")
    size = sum(file.stat().st_size for file in target.iterdir())
    say("trained", tokens=job["trained_tokens"], epochs=arguments.epochs, seconds=seconds, tokens_per_second=job["trained_tokens"] / seconds, megabytes=size / 1e6, load_average=os.getloadavg()[0])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--work", type=Path, help="keep index and rows here")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (arguments.work or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        make(arguments, folder)


if __name__ == "__main__":
    main()
