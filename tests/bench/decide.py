"""Runs `groundtone eval run` on real sets with real local models and prints one JSON line for each. The report of each goes to --out.

    ./gt bench decide --sets kettlewren,zava-cora,pubmedqa,banking77 --data FOLDER [--arms prompted,rag] [--rows 40] [--out docs/evaluations]

kettlewren   the sample brand: 20 held-out questions with a fact, and held-out questions of which some cannot be answered
zava-cora    a shop's catalogue and questions about it (MIT; --data/zava-cora)
pubmedqa     yes, no or maybe about an abstract (MIT; --data/pubmedqa)
banking77    77 intents of a bank's customers (CC BY 4.0; --data/banking77); for retrieval the documents are labelled examples
triage       the same messages sorted into 7 queues: a prompt of about 2,000 tokens (a rule for each intent and 15 examples) against a short one

With --work FOLDER the indexed folders are kept: a second run, with another list of arms, asks only what it has not asked. With --prepare-only nothing is asked.
Each folder has train.jsonl beside set.jsonl: rows that no test row is among or nearly among, for `groundtone dataset build` and `groundtone tune`.
"""

import argparse
import csv
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SEED = 20261127
ROOT = Path(__file__).resolve().parents[2]


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def settings(folder, name, system, abstain=None, extra=""):
    abstain = f"abstain = {json.dumps(abstain)}\n" if abstain else ""
    (folder / "groundtone.toml").write_text(f"[assistant]\nname = {json.dumps(name)}\nsystem = {json.dumps(system)}\n{abstain}{extra}")


def kettlewren(folder, data, rows):
    sample = ROOT / "samples/kettlewren"
    shutil.copytree(sample / "documents", folder / "documents", dirs_exist_ok=True)
    shutil.copy(sample / "voice/rules.toml", folder / "voice.toml")
    voice = lines(sample / "voice/voice-examples.jsonl")
    rng = random.Random(SEED)
    unknown = [row for row in voice if not row["documents"]]
    known = [row for row in voice if row["documents"]]
    rng.shuffle(unknown)
    rng.shuffle(known)
    held = known[:20] + unknown[:8]
    train = known[20:] + unknown[8:]
    questions = [{**row, "answerable": True} for row in lines(sample / "questions.jsonl")]
    fact = lambda row: {key: row[key] for key in ("id", "question", "answer", "documents")} | {"answerable": bool(row["documents"])}
    write(folder / "set.jsonl", questions[:rows] + [fact(row) for row in held][: max(rows - 20, 0)])
    write(folder / "train.jsonl", train)
    settings(folder, "kettlewren", (sample / "voice/system-prompt.txt").read_text().strip(), "I don't have that in our guides.")
    return ["--voice", "voice.toml", "--voice-examples", "train.jsonl", "--shots", "shots.jsonl"]


def zava_cora(folder, data, rows):
    raw = data / "zava-cora/raw"
    (folder / "documents").mkdir(exist_ok=True)
    with (raw / "products.csv").open() as file:
        products = list(csv.DictReader(file))
    for product in products:
        text = f"# {product['name']}\n\n{product['description']}\n\nPrice: ${float(product['price']):g}. In stock: {product['stock_level']}. Category: {product['main_category'].title()}, {product['subcategory'].title()}.\n"
        (folder / "documents" / f"{product['sku']}.md").write_text(text)
    pairs = [row["item"] for row in lines(raw / "33-distill_sft_qa.jsonl")]
    rng = random.Random(SEED)
    seen, unique = set(), []
    for pair in pairs:
        if pair["question"] not in seen:
            seen.add(pair["question"])
            unique.append(pair)
    rng.shuffle(unique)
    group = lambda pair: next((product["sku"] for product in products if product["name"].lower() in (pair["question"] + pair["answer"]).lower()), None)
    write(folder / "set.jsonl", [{**pair, **({"documents": [f"{group(pair)}.md"]} if group(pair) else {})} for pair in unique[:rows]])
    write(folder / "train.jsonl", unique[rows:])
    settings(folder, "zava", "You are Cora, the assistant of Zava, a DIY hardware store. Answer in one short sentence, with the price where it is asked.")
    return ["--metric", "token_f1", "--shots", "shots.jsonl"]


def pubmedqa(folder, data, rows):
    whole = json.loads((data / "pubmedqa/raw/ori_pqal.json").read_text())
    test = list(json.loads((data / "pubmedqa/raw/test_ground_truth.json").read_text()))
    rng = random.Random(SEED)
    rng.shuffle(test)
    chosen = test[:rows]
    (folder / "documents").mkdir(exist_ok=True)
    for number in test[: max(rows, 100)]:
        (folder / "documents" / f"{number}.md").write_text("\n\n".join(whole[number]["CONTEXTS"]) + "\n")
    row = lambda number: {"id": number, "question": whole[number]["QUESTION"], "label": whole[number]["final_decision"], "documents": [f"{number}.md"]}
    write(folder / "set.jsonl", [row(number) for number in chosen])
    train = [number for number in whole if number not in set(test)][:300]
    write(folder / "train.jsonl", [{"id": number, "question": whole[number]["QUESTION"], "answer": whole[number]["final_decision"], "label": whole[number]["final_decision"]} for number in train])
    settings(folder, "pubmed", "You answer medical research questions. Answer with one word: yes, no or maybe.")
    return ["--metric", "label_accuracy", "--max-tokens", "12", "--shots", "shots.jsonl"]


def banking77(folder, data, rows):
    read = lambda name: list(csv.DictReader((data / "banking77/raw" / name).open()))
    rng = random.Random(SEED)
    test, train = read("test.csv"), read("train.csv")
    rng.shuffle(test)
    rng.shuffle(train)
    labels = json.loads((data / "banking77/raw/categories.json").read_text())
    (folder / "documents").mkdir(exist_ok=True)
    for label in labels:
        examples = [row["text"].replace("\n", " ") for row in train if row["category"] == label][:12]
        (folder / "documents" / f"{label}.md").write_text(f"# {label}\n\nCustomers who write about {label.replace('_', ' ')} say for example:\n\n" + "\n".join(f"- {text}" for text in examples) + f"\n\nThe label is {label}.\n")
    write(folder / "set.jsonl", [{"id": f"t{at}", "question": row["text"], "label": row["category"]} for at, row in enumerate(test[:rows])])
    write(folder / "train.jsonl", [{"id": f"r{at}", "question": row["text"], "answer": row["category"], "label": row["category"]} for at, row in enumerate(train[:1500])])
    (folder / "prompt.md").write_text("The labels are: " + ", ".join(labels) + ".\n")
    settings(folder, "bank", "You sort messages of a bank's customers. Answer with the label alone.")
    return ["--metric", "label_accuracy", "--max-tokens", "16", "--prompt", "prompt.md", "--shots", "shots.jsonl"]


QUEUES = [
    ("account", ("verify", "identity", "personal_details", "age_limit", "terminate", "passcode", "pin", "source_of_funds", "country", "phone")),
    ("top-up", ("top_up", "topping")),
    ("transfer", ("transfer", "beneficiary", "receiving_money", "direct_debit")),
    ("cash", ("cash", "atm", "swallowed")),
    ("exchange", ("exchange", "fiat", "currenc")),
    ("payment", ("card_payment", "refund", "charged", "charge")),
    ("card", ("",)),
]


def queue(intent):
    return next(name for name, words in QUEUES if any(word in intent.lower() for word in words))


def triage(folder, data, rows):
    read = lambda name: list(csv.DictReader((data / "banking77/raw" / name).open()))
    rng = random.Random(SEED)
    test, train = read("test.csv"), read("train.csv")
    rng.shuffle(test)
    rng.shuffle(train)
    (folder / "documents").mkdir(exist_ok=True)
    intents = json.loads((data / "banking77/raw/categories.json").read_text())
    for name, _ in QUEUES:
        topics = ", ".join(intent.replace("_", " ").strip("?") for intent in intents if queue(intent) == name)
        (folder / "documents" / f"{name}.md").write_text(f"# The queue {name}\n\nIt takes messages about {topics}.\n")
    row = lambda kind: lambda numbered: {"id": f"{kind}{numbered[0]}", "question": numbered[1]["text"], "answer": queue(numbered[1]["category"]), "label": queue(numbered[1]["category"])}
    write(folder / "set.jsonl", map(row("t"), enumerate(test[:rows])))
    trained = list(map(row("r"), enumerate(train[:400])))
    write(folder / "train.jsonl", trained)
    rules = "\n".join(f"- A message about {intent.replace('_', ' ').strip('?')} goes to the queue {queue(intent)}." for intent in intents)
    shots = "\n\n".join(f"Message: {example['question'].strip()}\nQueue: {example['answer']}" for example in trained[-15:])
    names = ", ".join(name for name, _ in QUEUES)
    (folder / "prompt.md").write_text(f"You sort the messages of a bank's customers into queues. The queues are {names}. Answer with the name of the queue and nothing else: no full stop, no explanation, no greeting. If a message is about two things, take the one that the customer wants solved first. Do not answer the customer.\n\nRules:\n{rules}\n\nExamples:\n\n{shots}\n")
    settings(folder, "bank", f"Sort the customer's message. Answer with one of {names}.", extra="\n[chat]\ncontext_tokens = 4096\n")
    return ["--metric", "label_accuracy", "--max-tokens", "8", "--shots", "shots.jsonl"]


SETS = {"triage": triage, "kettlewren": kettlewren, "zava-cora": zava_cora, "pubmedqa": pubmedqa, "banking77": banking77}


def run(binary, folder, *arguments):
    environment = {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data")}
    done = subprocess.run([binary, *arguments, "--json"], capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode != 0:
        sys.exit(f"{arguments}: {done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def decide(arguments, name, work):
    folder = work / name
    folder.mkdir(parents=True, exist_ok=True)
    flags = SETS[name](folder, arguments.data, arguments.rows)
    write(folder / "shots.jsonl", lines(folder / "train.jsonl")[:4])
    if not (folder / "data").exists():
        run(arguments.binary, folder, "ingest", "documents")
    if arguments.prepare_only:
        return print(json.dumps({"set": name, "folder": str(folder)}), flush=True)
    out = (arguments.out or folder) / name
    prices = ["--prices", str(arguments.prices.resolve())] if arguments.prices else []
    arms = ["--arms-file", str(arguments.arms_file.resolve())] if arguments.arms_file else []
    report = run(arguments.binary, folder, "eval", "run", "--set", "set.jsonl", "--train", "train.jsonl", "--drop-leaked", "--arms", arguments.arms, "--out", str(out.resolve()), *flags, *prices, *arms)
    figures = {arm["name"]: {"value": round(arm["metrics"][report["primary"]]["value"], 3), "p50_s": round(arm["latency"]["p50_ms"] / 1e3, 2), "prompt_tokens": arm["tokens"]["prompt"]} for arm in report["arms"]}
    print(json.dumps({"set": name, "rows": report["set"]["rows"], "metric": report["primary"], "arms": figures, "verdict": report["verdict"]["decision"], "reason": report["verdict"]["reason"], "load_average": round(os.getloadavg()[0], 1)}), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", required=True)
    parser.add_argument("--sets", default="kettlewren")
    parser.add_argument("--data", type=Path, help="the folder with zava-cora, pubmedqa and banking77")
    parser.add_argument("--arms", default="prompted,rag")
    parser.add_argument("--arms-file", type=Path)
    parser.add_argument("--prices", type=Path)
    parser.add_argument("--rows", type=int, default=40)
    parser.add_argument("--out", type=Path, help="keep report.html and report.json here, in a folder for each set")
    parser.add_argument("--work", type=Path, help="keep the indexed folders here")
    parser.add_argument("--prepare-only", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        for name in arguments.sets.split(","):
            decide(arguments, name, arguments.work or Path(temporary))


if __name__ == "__main__":
    main()
