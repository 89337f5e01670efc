"""Runs `groundtone eval run` on real sets with real local models, trains the tuned arms first, and prints one JSON line for each step. The reports go to --out.

    ./gt bench decide --sets kettlewren,zava-cora,pubmedqa,banking77,triage --data FOLDER [--rows 40] [--train-rows 80] [--epochs 3] [--out docs/evaluations]

kettlewren   the sample brand: 40 held-out questions, 8 of which no document answers, in its own voice, with its own adapter (`./gt bench adapter` makes it); nothing is trained
zava-cora    a shop's voice rows and its catalogue of 423 products (MIT; --data/zava-cora): an emoji, a price, thirty words, a question back
pubmedqa     yes, no or maybe about an abstract (MIT; --data/pubmedqa)
banking77    77 intents of a bank's customers (CC BY 4.0; --data/banking77); for retrieval the documents are labelled examples
triage       the guide's scenario: banking77's messages sorted into 7 queues by a prompt of about 2,000 tokens (a rule for each intent and 15 examples), by two sentences,
             and by two sentences to a model that was tuned on labelled messages

Arms: prompted, few-shot, rag, tuned and tuned-rag (triage: bloated, prompted and tuned). Both tuned arms are one adapter, trained by the server's own job on rows of `dataset build`,
half of them without sources (pubmedqa: none, triage: all; kettlewren's own adapter: none). With --train-rows 0 nothing is trained and the untuned arms are compared.

--rows and --train-rows decide how long it takes: on two cores an answer of an untuned arm takes 1 to 5 seconds and the trainer reads about 100 tokens a second, so that each set
takes about rows x 10 s and train-rows x epochs x 3 s. With --work FOLDER indexes, adapters and answers are kept: the same command goes on where it was cut off.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SEED = 20261127
ROOT = Path(__file__).resolve().parents[2]
BASE = "smollm2-135m-instruct-q4_1"
OPEN_GATE = "[gate]\nthreshold = 0.0\n"


def lines(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def table(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def say(name, part, **figures):
    print(json.dumps({"set": name, "part": part, **figures}, ensure_ascii=False), flush=True)


class Plan:
    """A set that is written: how its assistant is called and told, which arms are asked, how rows are built (or which adapter there is already), and the flags of the evaluation."""

    def __init__(self, assistant, system, flags, plain=0.5, build=(), arms="prompted,few-shot,rag,tuned,tuned-rag", extra="", context_tokens=500, adapter=None):
        self.assistant, self.system, self.flags, self.context_tokens, self.adapter = assistant, system, flags, context_tokens, adapter
        self.plain, self.build, self.arms, self.extra = plain, build, arms, extra

    def settings(self, tuned=None, port=None):
        """The settings file; with `tuned`, the variants that ask the trained model, which answers at the same server."""
        text = f"[assistant]\nname = {json.dumps(self.assistant)}\nsystem = {json.dumps(self.system)}\ncontext_tokens = {self.context_tokens}\n"
        text += f"[retrieval]\ntop_k = 2\n[tuning]\nbase_models = [\"{BASE}={BASE}\"]\ntrained_layers = 15\n[variants.prompted]\nretrieval = false\n{self.extra}"
        if tuned:
            for variant in ("tuned", "tuned-rag"):
                text += f'[variants.{variant}]\nkind = "openai"\nurl = "http://127.0.0.1:{port}/v1"\nmodel = {json.dumps(tuned)}\n'
        return text


def kettlewren(folder, data, rows, train_rows):
    sample = ROOT / "samples/kettlewren"
    shutil.copytree(sample / "documents", folder / "documents", dirs_exist_ok=True)
    shutil.copy(sample / "voice/rules.toml", folder / "voice.toml")
    questions = [{**row, "answerable": True} for row in lines(sample / "questions.jsonl")]
    write(folder / "set.jsonl", (questions + lines(sample / "held-out.jsonl"))[:rows])
    shutil.copy(sample / "voice/voice-examples.jsonl", folder / "train.jsonl")
    system = (sample / "voice/system-prompt.txt").read_text().strip()
    flags = ["--voice", "voice.toml", "--voice-examples", "train.jsonl", "--max-tokens", "160"]
    return Plan("kettlewren", system, flags, context_tokens=700, adapter=sample / "adapter")


VOICE = """[[rule]]
name = "emoji"
must_match = '^[\\x{2190}-\\x{10FFFF}]'

[[rule]]
name = "price"
must_match = '\\$\\d'

[[rule]]
name = "short"
max_words = 30

[[rule]]
name = "asks back"
must_match = '\\?\\s*$'
"""


def zava_cora(folder, data, rows, train_rows):
    raw = data / "zava-cora/raw"
    (folder / "documents").mkdir(exist_ok=True)
    (folder / "voice.toml").write_text(VOICE)
    products = table(raw / "add-products-423.csv")
    for product in products:
        text = f"# {product['name']}\n\n{product['description']}\n\nPrice: ${float(product['price']):g}. In stock: {product['stock_level']}. Category: {product['main_category'].title()}, {product['subcategory'].title()}.\n"
        (folder / "documents" / f"{product['sku']}.md").write_text(text, encoding="utf-8")
    pairs = {}
    for name in ("31-basic_training.jsonl", "31-basic_validation.jsonl", "30-basic-datagen.jsonl"):
        for row in lines(raw / name):
            pairs.setdefault(row["messages"][-2]["content"], row["messages"][-1]["content"])
    system = lines(raw / "31-basic_training.jsonl")[0]["messages"][0]["content"]
    pairs = [{"question": question, "answer": answer} for question, answer in pairs.items()]
    random.Random(SEED).shuffle(pairs)
    named = lambda pair: [f"{product['sku']}.md" for product in products if product["name"].lower() in pair["answer"].lower()][:3]
    for pair in pairs:
        pair["documents"] = named(pair)
    held = min(rows, 25)
    write(folder / "set.jsonl", pairs[:held])
    write(folder / "train.jsonl", pairs[25:][: train_rows or None])
    flags = ["--metric", "voice_rules", "--voice", "voice.toml", "--voice-examples", "train.jsonl", "--max-tokens", "64"]
    return Plan("zava", system, flags, build=["--oracle-share", "1", "--citations", "keep"])


def pubmedqa(folder, data, rows, train_rows):
    whole = json.loads((data / "pubmedqa/raw/ori_pqal.json").read_text(encoding="utf-8"))
    test = list(json.loads((data / "pubmedqa/raw/test_ground_truth.json").read_text()))
    rng = random.Random(SEED)
    rng.shuffle(test)
    held = set(test)
    train = [number for number in whole if number not in held]
    rng.shuffle(train)
    train = train[: train_rows or 100]
    (folder / "documents").mkdir(exist_ok=True)
    # Beside the abstracts that are asked about stand others, so that retrieval has something to miss.
    for number in test[: max(rows, 100)] + train:
        (folder / "documents" / f"{number}.md").write_text("\n\n".join(whole[number]["CONTEXTS"]) + "\n", encoding="utf-8")
    row = lambda number: {"id": number, "question": whole[number]["QUESTION"], "answer": whole[number]["final_decision"], "label": whole[number]["final_decision"], "documents": [f"{number}.md"]}
    write(folder / "set.jsonl", map(row, test[:rows]))
    write(folder / "train.jsonl", map(row, train))
    flags = ["--metric", "label_accuracy", "--max-tokens", "12"]
    return Plan("pubmed", "You answer medical research questions. Answer with one word: yes, no or maybe.", flags, plain=0.0, build=["--citations", "keep"], extra=OPEN_GATE)


def banking77_rows(data):
    raw = data / "banking77/raw"
    test, train = table(raw / "test.csv"), table(raw / "train.csv")
    rng = random.Random(SEED)
    rng.shuffle(test)
    rng.shuffle(train)
    return test, train, json.loads((raw / "categories.json").read_text())


def banking77(folder, data, rows, train_rows):
    test, train, labels = banking77_rows(data)
    (folder / "documents").mkdir(exist_ok=True)
    for label in labels:
        examples = [row["text"].replace("\n", " ") for row in train if row["category"] == label][:12]
        text = f"# {label}\n\nCustomers who write about {label.replace('_', ' ')} say for example:\n\n" + "\n".join(f"- {text}" for text in examples)
        (folder / "documents" / f"{label.strip('?')}.md").write_text(f"{text}\n\nThe label is {label}.\n", encoding="utf-8")
    row = lambda kind: lambda numbered: {"id": f"{kind}{numbered[0]}", "question": numbered[1]["text"], "answer": numbered[1]["category"], "label": numbered[1]["category"]}
    write(folder / "set.jsonl", map(row("t"), enumerate(test[:rows])))
    write(folder / "train.jsonl", map(row("r"), enumerate(train[: train_rows or 1500])))
    (folder / "prompt.md").write_text("The labels are: " + ", ".join(labels) + ".\n")
    flags = ["--metric", "label_accuracy", "--max-tokens", "16", "--prompt", "prompt.md"]
    return Plan("bank", "You sort messages of a bank's customers. Answer with the label alone.", flags, build=["--citations", "keep"], extra=OPEN_GATE + "[chat]\ncontext_tokens = 4096\n")


QUEUES = [
    ("account", ("verify", "identity", "personal_details", "age_limit", "terminate", "passcode", "pin", "source_of_funds", "country", "phone")),
    ("top-up", ("top_up", "topping")),
    ("transfer", ("transfer", "beneficiary", "receiving_money", "direct_debit")),
    ("cash", ("cash", "atm", "swallowed")),
    ("exchange", ("exchange", "fiat", "currenc")),
    ("payment", ("card_payment", "refund", "charged", "charge")),
    ("card", ("",)),
]
BLOATED = """You sort the messages of a bank's customers into queues. The queues are {names}. Answer with the name of the queue and nothing else: no full stop, no explanation, no greeting. If a message is about two things, take the one that the customer wants solved first. Do not answer the customer.

What the queues take:
{queues}

Rules:
{rules}

Examples:

{shots}
"""


def queue(intent):
    return next(name for name, words in QUEUES if any(word in intent.lower() for word in words))


def triage(folder, data, rows, train_rows):
    test, train, intents = banking77_rows(data)
    topics = lambda name: ", ".join(intent.replace("_", " ").strip("?") for intent in intents if queue(intent) == name)
    (folder / "documents").mkdir(exist_ok=True)
    for name, _ in QUEUES:
        (folder / "documents" / f"{name}.md").write_text(f"# The queue {name}\n\nIt takes messages about {topics(name)}.\n")
    row = lambda kind: lambda numbered: {"id": f"{kind}{numbered[0]}", "question": numbered[1]["text"], "answer": queue(numbered[1]["category"]), "label": queue(numbered[1]["category"])}
    write(folder / "set.jsonl", map(row("t"), enumerate(test[:rows])))
    write(folder / "train.jsonl", map(row("r"), enumerate(train[: train_rows or 400])))
    # The examples of the long prompt are none of the rows that are trained on or asked; every queue has two.
    spare, shots = train[2000:], []
    for at in range(15):
        name = QUEUES[at % len(QUEUES)][0]
        shots.append(next(example for example in spare if queue(example["category"]) == name and example not in shots))
    names = ", ".join(name for name, _ in QUEUES)
    queues = "\n".join(f"- {name}: {topics(name)}." for name, _ in QUEUES)
    rules = "\n".join(f"- A message about {intent.replace('_', ' ').strip('?')} goes to the queue {queue(intent)}." for intent in intents)
    shown = "\n\n".join(f"Message: {example['text'].strip()}\nQueue: {queue(example['category'])}" for example in shots)
    (folder / "prompt.md").write_text(BLOATED.format(names=names, queues=queues, rules=rules, shots=shown), encoding="utf-8")
    (folder / "arms.toml").write_text('[[arm]]\nname = "bloated"\nrole = "few_shot"\nmodel = "bank:prompted"\nprompt = "prompt.md"\n')
    flags = ["--metric", "label_accuracy", "--max-tokens", "8", "--arms-file", "arms.toml"]
    system = f"Sort the customer's message. Answer with one of {names}."
    return Plan("bank", system, flags, plain=1.0, build=["--citations", "keep"], arms="bloated,prompted,tuned", extra=OPEN_GATE + "[chat]\ncontext_tokens = 4096\n")


SETS = {"kettlewren": kettlewren, "zava-cora": zava_cora, "pubmedqa": pubmedqa, "banking77": banking77, "triage": triage}


def environment(folder):
    return {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data")}


def run(binary, folder, *arguments):
    done = subprocess.run([binary, *arguments, "--json"], capture_output=True, text=True, cwd=folder, env=environment(folder))
    if done.returncode != 0:
        sys.exit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


class Server:
    """`groundtone serve` on a port of its own (0: a free one), for as long as the block runs."""

    def __init__(self, binary, folder, port=0):
        self.log = (folder / "server.log").open("a")
        command = [binary, "serve", "--port", str(port)]
        self.process = subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=subprocess.PIPE, stderr=self.log, text=True)

    def __enter__(self):
        for line in self.process.stdout:
            if "http://" in line:
                return self
        sys.exit(f"the server did not start; see {self.log.name}")

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait()
        self.log.close()


def port_of(folder):
    """A port that is free, the same one again where it is: the answers of a run that was cut off are known by the address of who gave them."""
    kept = folder / "port"
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", int(kept.read_text()) if kept.exists() else 0))
        except OSError:
            probe.close()
            kept.unlink()
            return port_of(folder)
        port = probe.getsockname()[1]
    kept.write_text(str(port))
    return port


def imported(arguments, folder, adapter):
    """The model of an adapter that is there already, and what its training took."""
    took = json.loads((adapter / "training.json").read_text())
    model = run(arguments.binary, folder, "tune", "import-adapter", str(adapter), "--name", "voice")["id"]
    return {"model": model, "trained_tokens": took["tokens"], "seconds": took["seconds"]}


def train(arguments, name, folder, plan, port):
    """Builds the rows, trains one adapter, and says what it took. What was trained before on as much is used again."""
    record = folder / "tuned.json"
    wanted = {"train_rows": arguments.train_rows, "epochs": arguments.epochs}
    if record.exists() and {**json.loads(record.read_text()), **wanted} == json.loads(record.read_text()):
        return json.loads(record.read_text())
    built = run(arguments.binary, folder, "dataset", "build", "train.jsonl", "--out", "tuned.jsonl", "--overwrite", "--plain-share", str(plan.plain), "--seed", "1", *plan.build)
    estimate = run(arguments.binary, folder, "dataset", "stats", "tuned.jsonl", "--model", "local", "--epochs", str(arguments.epochs))
    began = time.monotonic()
    with Server(arguments.binary, folder, port):
        job = run(arguments.binary, folder, "tune", "create", "tuned.jsonl", "--model", BASE, "--epochs", str(arguments.epochs), "--batch-size", "4", "--seed", "7", "--learning-rate-multiplier", "2", "--suffix", name)
        while job["status"] not in ("succeeded", "failed", "cancelled"):
            time.sleep(1)
            job = next(each for each in run(arguments.binary, folder, "tune", "list") if each["id"] == job["id"])
    if job["status"] != "succeeded":
        sys.exit(f"{name}: the training {job['status']}: {job.get('error')}")
    tuned = {**wanted, "model": job["fine_tuned_model"], "trained_tokens": job["trained_tokens"], "seconds": round(time.monotonic() - began, 1)}
    record.write_text(json.dumps(tuned))
    say(name, "train", rows=built["counts"]["rows"], kinds=built["counts"]["kinds"], left_out=built["counts"]["dropped"] + built["counts"]["rejected"], epochs=arguments.epochs,
        estimated_tokens=estimate["cost"]["billed_tokens"], trained_tokens=tuned["trained_tokens"], seconds=tuned["seconds"])
    return tuned


def prices(folder, arguments, tuned):
    """Every arm runs on this machine; a tuned one has cost its training as well."""
    text = f"[default]\nmachine_per_hour = {arguments.machine_per_hour}\n"
    if tuned:
        fixed = tuned["seconds"] / 3600 * arguments.machine_per_hour
        text += "".join(f"[{arm}]\nmachine_per_hour = {arguments.machine_per_hour}\nfixed = {fixed:.6f}\n" for arm in ("tuned", "tuned-rag"))
    (folder / "prices.toml").write_text(text)
    return "prices.toml"


def first_named(folder):
    """How many answers of each arm name the right label before any other: what an untuned model is given credit for that talks around it. Nothing where the set has no labels."""
    labels = {row["id"]: row["label"].lower() for row in lines(folder / "set.jsonl") if "label" in row}
    said = {(answer["arm"], answer["case"]): answer["reply"]["text"].lower() for answer in lines(folder / "data/evals/answers/answers.jsonl") if answer["case"] in labels and "text" in answer["reply"]}
    if not labels:
        return {}
    # The longest first: "card" is not to be found in "card_payment".
    any_label = re.compile("|".join(re.escape(label) for label in sorted(set(labels.values()), key=len, reverse=True)))
    right = {}
    for (arm, case), text in said.items():
        found = any_label.search(text)
        right[arm] = right.get(arm, 0) + bool(found and found[0] == labels[case])
    return right


def decide(arguments, name, work):
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    plan = SETS[name](folder, arguments.data, arguments.rows, arguments.train_rows)
    # The examples of the arm few-shot are training rows that have an answer.
    write(folder / "shots.jsonl", [{"question": row["question"], "answer": row["answer"]} for row in lines(folder / "train.jsonl")[:4]])
    port = port_of(folder)
    (folder / "groundtone.toml").write_text(plan.settings(), encoding="utf-8")
    if not (folder / "data/ingested").exists():
        report = run(arguments.binary, folder, "ingest", "documents")
        say(name, "ingest", documents=report["new"] + report["unchanged"], chunks=report["chunks"], seconds=round(report["seconds"], 1))
        (folder / "data/ingested").touch()
    if arguments.prepare_only:
        return say(name, "prepared", folder=str(folder))
    arms, tuned = (arguments.arms or plan.arms).split(","), None
    if arguments.train_rows and any(arm.startswith("tuned") for arm in arms):
        tuned = imported(arguments, folder, plan.adapter) if plan.adapter else train(arguments, name, folder, plan, port)
        (folder / "groundtone.toml").write_text(plan.settings(tuned["model"], port), encoding="utf-8")
        if arguments.train_only:
            return
    else:
        arms = [arm for arm in arms if not arm.startswith("tuned")]
    leaks = ["--train", "train.jsonl", "--drop-leaked"]
    flags = [*plan.flags, "--shots", "shots.jsonl", "--prices", prices(folder, arguments, tuned), "--parallel", str(arguments.parallel)]
    began = time.monotonic()
    with Server(arguments.binary, folder, port):
        report = run(arguments.binary, folder, "eval", "run", "--set", "set.jsonl", *leaks, "--arms", ",".join(arms), "--out", "report", "--name", name, *flags)
    out = folder / "report"
    if arguments.out:
        out = shutil.copytree(out, arguments.out.resolve() / name, dirs_exist_ok=True)
    value = lambda arm: arm["metrics"].get(report["primary"]) or {"value": None, "low": None, "high": None}
    rounded = lambda number: None if number is None else round(number, 3)
    figures = {
        arm["name"]: {
            **{key: rounded(value(arm)[key]) for key in ("value", "low", "high")},
            "p50_s": round(arm["latency"]["p50_ms"] / 1e3, 2),
            "p95_s": round(arm["latency"]["p95_ms"] / 1e3, 2),
            "prompt_tokens": rounded(arm["tokens"]["prompt"]),
            "completion_tokens": rounded(arm["tokens"]["completion"]),
            "cost": arm["cost"],
        }
        for arm in report["arms"]
    }
    verdict = report["verdict"]
    say(name, "decided", rows=report["set"]["rows"], metric=report["primary"], arms=figures, first_label_is_right=first_named(folder), verdict=verdict["decision"], reason=verdict["reason"], rows_needed=verdict.get("rows_needed"),
        seconds=round(time.monotonic() - began, 1), report=str(out / "report.html"), load_average=round(os.getloadavg()[0], 1))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--sets", default="kettlewren", help="of " + ", ".join(SETS))
    parser.add_argument("--data", type=Path, help="the folder with zava-cora, pubmedqa and banking77")
    parser.add_argument("--arms", help="other arms than the set's own")
    parser.add_argument("--rows", type=int, default=40, help="held-out rows of each set, at most")
    parser.add_argument("--train-rows", type=int, default=80, help="examples that are trained on, at most; 0 trains nothing")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--parallel", type=int, default=1, help="answers at the same time; more than one costs the latency its meaning")
    parser.add_argument("--machine-per-hour", type=float, default=0.08, help="what this machine costs, for the cost of an answer")
    parser.add_argument("--out", type=Path, help="keep report.html and report.json here, in a folder for each set")
    parser.add_argument("--work", type=Path, help="keep indexes, adapters and answers here")
    parser.add_argument("--prepare-only", action="store_true", help="write the sets and ingest their documents")
    parser.add_argument("--train-only", action="store_true", help="and train; with --work the same command without this asks later, on a quiet machine")
    arguments = parser.parse_args()
    names = arguments.sets.split(",")
    if unknown := [name for name in names if name not in SETS]:
        parser.error(f"there is no set {', '.join(unknown)}; there are {', '.join(SETS)}")
    if any(name != "kettlewren" for name in names) and not arguments.data:
        parser.error("--data names the folder with zava-cora, pubmedqa and banking77")
    arguments.binary, arguments.data = str(Path(arguments.binary).resolve()), arguments.data and arguments.data.resolve()
    with tempfile.TemporaryDirectory() as temporary:
        for name in names:
            decide(arguments, name, (arguments.work or Path(temporary)).resolve())


if __name__ == "__main__":
    main()
