"""Measures the local trainer. Each part prints one JSON line; `--parts` chooses.

    ./gt bench tune [--parts labels,voice,speed,numerics] [--voice FOLDER] [--base FILE.gguf] [--torch PYTHON]

labels     a three-label support classifier from 60 rows: held-out tickets right, tuned with a short prompt, untuned with a short and with a few-shot prompt; intervals are paired
voice      rows of a brand's voice (FOLDER holds the zava-cora set): held-out answers that keep all its rules, untuned and tuned
speed      tokens/s forward and backward at rows of 64, 256 and 600 tokens, and peak memory; with --torch beside PyTorch and PEFT, turn by turn
numerics   losses beside those of PyTorch and PEFT, computed anew (--torch)

PYTHON is an interpreter that has torch, transformers, peft and gguf.
"""

import argparse
import json
import os
import pathlib
import random
import re
import resource
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "crates/tuning/tests/fixtures"
LABELS = ["billing", "delivery", "technical"]
SHORT = "Label the ticket with one word: billing, delivery or technical."
RULES = """You label support tickets of a shop. Answer with exactly one word, in lower case, and nothing else: billing, delivery or technical.
billing: everything about money. Charges, invoices, receipts, refunds, prices, taxes, vouchers, payment methods, subscriptions and their fees.
delivery: everything about the way of the goods to the customer. Parcels that are late, lost, incomplete or broken, addresses, couriers, tracking, shipping times and places.
technical: everything about the website, the app and the account's login. Errors, crashes, slow pages, passwords, confirmation mails, uploads.
If a ticket is about money and about a parcel, choose what the customer asks for."""


def say(part, **figures):
    print(json.dumps({"part": part, **{key: round(value, 3) if isinstance(value, float) else value for key, value in figures.items()}}), flush=True)


def chat(system, user, answer=""):
    return {"messages": [{"role": "system", "content": system}, {"role": "user", "content": user}, {"role": "assistant", "content": answer}]}


def write(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


class Lora:
    """The example `lora` on one base model."""

    def __init__(self, base):
        target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
        subprocess.run(["cargo", "build", "--release", "--locked", "--workspace", "--examples", "-q"], check=True, cwd=ROOT)
        self.program, self.base = target / "release/examples/lora", base

    def train(self, folder, **request):
        (folder / "request.json").write_text(json.dumps(request))
        began = time.monotonic()
        done = subprocess.run([self.program, "train", self.base, folder / "request.json", folder / "job"], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr[-2000:])
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        return {"adapter": lines[-1]["adapter"], "steps": [line for line in lines if "norm" in line], "seconds": time.monotonic() - began, "tokens": lines[-1]["trained_tokens"]}

    def ask(self, adapter, rows, tokens):
        done = subprocess.run([self.program, "ask", self.base, adapter or "-", rows, str(tokens)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr[-2000:])
        return [json.loads(line) for line in done.stdout.splitlines()]


def interval(better, worse, seed=20261127, rounds=10_000):
    """The 95 % bootstrap interval of the mean difference of pairs."""
    differences, dice = [a - b for a, b in zip(better, worse)], random.Random(seed)
    means = sorted(sum(dice.choices(differences, k=len(differences))) / len(differences) for _ in range(rounds))
    return [round(means[int(rounds * 0.025)], 3), round(means[int(rounds * 0.975) - 1], 3)]


def labels(lora, _arguments):
    train, test = read(FIXTURES / "support_train.jsonl"), read(FIXTURES / "support_test.jsonl")
    pair = lambda row: (row["messages"][1]["content"], row["messages"][2]["content"])
    system = train[0]["messages"][0]["content"]
    shots = [pair(row) for row in train[:15]]
    few = RULES + "\n\nExamples:\n" + "\n".join(f"Ticket: {ticket}\nLabel: {label}" for ticket, label in shots)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = lora.train(folder, method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters={"n_epochs": 4, "learning_rate_multiplier": 2.0})
        arms = {
            "tuned": (done["adapter"], [chat(system, pair(row)[0]) for row in test]),
            "short": (None, [chat(SHORT, pair(row)[0]) for row in test]),
            "few_shot": (None, [chat(few, "Ticket: " + pair(row)[0] + "\nLabel:") for row in test]),
        }
        right, prompts, seconds = {}, {}, {}
        for arm, (adapter, rows) in arms.items():
            answers = lora.ask(adapter, write(folder / f"{arm}.jsonl", rows), 8)
            # Generous to the untuned model: a label is right wherever it is the first one that the answer names.
            named = [next(iter(re.findall("|".join(LABELS), answer["answer"].lower())), "") for answer in answers]
            right[arm] = [int(found == pair(row)[1]) for found, row in zip(named, test)]
            prompts[arm] = sum(answer["usage"]["prompt_tokens"] for answer in answers) / len(answers)
            seconds[arm] = sum(answer["seconds"] for answer in answers) / len(answers)
        exact = sum(answer["answer"].strip() == pair(row)[1] for answer, row in zip(lora.ask(done["adapter"], folder / "tuned.jsonl", 8), test))
    say(
        "labels", rows=len(train), held_out=len(test), training_seconds=done["seconds"], tokens_per_second=done["tokens"] / done["seconds"],
        right={arm: sum(found) for arm, found in right.items()}, tuned_exactly=exact,
        over_short=interval(right["tuned"], right["short"]), over_few_shot=interval(right["tuned"], right["few_shot"]),
        prompt_tokens={arm: round(tokens, 1) for arm, tokens in prompts.items()}, cut=1 - prompts["tuned"] / prompts["few_shot"],
        seconds_an_answer={arm: round(value, 3) for arm, value in seconds.items()},
    )


def keeps(answer):
    """The rules of Cora's voice: an emoji first, a price, at most 30 words, a question at the end."""
    answer = answer.strip()
    return {
        "emoji": bool(answer) and ord(answer[0]) > 0x2000 and not answer[0].isalnum(),
        "price": bool(re.search(r"\$\d", answer)),
        "short": len(answer.split()) <= 30,
        "question": answer.endswith("?"),
    }


def voice(lora, arguments):
    if not arguments.voice:
        return say("voice", skipped="--voice FOLDER is not given")
    raw = arguments.voice / "raw"
    system = read(raw / "31-basic_training.jsonl")[0]["messages"][0]["content"]
    pairs = {}
    for name in ["31-basic_training.jsonl", "31-basic_validation.jsonl", "30-basic-datagen.jsonl"]:
        for row in read(raw / name):
            pairs.setdefault(row["messages"][-2]["content"], (row["messages"][-1]["content"], name))
    rows = [(question, answer) for question, (answer, _) in pairs.items()]
    random.Random(1).shuffle(rows)
    test, train = rows[:30], rows[30:]
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        file = write(folder / "train.jsonl", [chat(system, question, answer) for question, answer in train])
        done = lora.train(folder, method="supervised", training_file=str(file), hyperparameters={"n_epochs": 5, "learning_rate_multiplier": 2.0})
        asked = write(folder / "test.jsonl", [chat(system, question) for question, _ in test])
        spelled = system + " Begin every answer with one emoji, answer in one short sentence that names a price in dollars, and end with a short question."
        told = write(folder / "told.jsonl", [chat(spelled, question) for question, _ in test])
        found = {"tuned": lora.ask(done["adapter"], asked, 60), "untuned": lora.ask(None, asked, 60), "untuned_told_the_rules": lora.ask(None, told, 60)}
    kept = {arm: [keeps(answer["answer"]) for answer in answers] for arm, answers in found.items()}
    whole = {arm: [int(all(rules.values())) for rules in answers] for arm, answers in kept.items()}
    say(
        "voice", rows=len(train), held_out=len(test), training_seconds=done["seconds"], all_rules={arm: sum(found) for arm, found in whole.items()},
        each_rule={arm: {rule: sum(answer[rule] for answer in answers) for rule in answers[0]} for arm, answers in kept.items()},
        over_untuned=interval(whole["tuned"], whole["untuned"]), over_told=interval(whole["tuned"], whole["untuned_told_the_rules"]),
        example=found["tuned"][0]["answer"],
    )


TORCH = """
import json, resource, sys, time
sys.path.insert(0, sys.argv[1])
import torch
import peft_reference as reference
base, request, folder, repeats = sys.argv[2], json.loads(open(sys.argv[3]).read()), sys.argv[4], int(sys.argv[5])
model, tokenizer = reference.load(base)
model = reference.adapted(model, folder)
model.train()
import pathlib
data = [row[0] for row in reference.rows(tokenizer, pathlib.Path(request["training_file"]), "supervised")]
ids = torch.tensor([tokens for tokens, _ in data])
labels = torch.tensor([[token if own else -100 for token, own in zip(*row)] for row in data])
optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
for step in range(repeats):
    began = time.monotonic()
    loss = model(input_ids=ids, labels=labels).loss
    optimizer.zero_grad(); loss.backward()
    torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
    optimizer.step()
    print(json.dumps({"seconds": time.monotonic() - began, "tokens": ids.numel(), "loss": loss.item(), "mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}), flush=True)
"""


def padded_row(length):
    """A row of about so many tokens: prose, and an answer of a fifth of it."""
    words = "the warehouse keeps its records in a ledger that is copied every night to a second building and a clerk checks the totals".split()
    text = lambda count, at: " ".join(words[(at + place) % len(words)] for place in range(count))
    answer = max(4, length // 5)
    return lambda at: chat("Answer.", text(length - answer - 22, at), text(answer, at + 3))


def speed(lora, arguments):
    sys.path.insert(0, str(FIXTURES))
    import peft_reference

    for length, batch in [(64, 4), (256, 4), (600, 1)]:
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            make = padded_row(length)
            file = write(folder / "rows.jsonl", [make(0)] * batch)
            request = {"method": "supervised", "training_file": str(file), "hyperparameters": {"n_epochs": 4, "batch_size": batch}}
            ours, theirs, memory = [], [], {}
            if arguments.torch:
                peft = peft_reference.first_values(str(lora.base), str(lora.program), request, folder)
                (folder / "torch.json").write_text(json.dumps(request))
            for _ in range(arguments.rounds):
                before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
                done = subprocess.run(["/usr/bin/env", "python3", "-c", MEASURE, str(lora.program), str(lora.base), json.dumps(request), str(folder)], capture_output=True, text=True)
                lines = [json.loads(line) for line in done.stdout.splitlines()]
                ours += [line["tokens"] / line["seconds"] for line in lines if "norm" in line][1:]
                memory["ours"] = max(memory.get("ours", 0), lines[-1]["mb"])
                if arguments.torch:
                    done = subprocess.run([arguments.torch, "-c", TORCH, FIXTURES, lora.base, folder / "torch.json", peft, "4"], capture_output=True, text=True)
                    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
                    if not lines:
                        sys.exit(done.stderr[-2000:])
                    theirs += [line["tokens"] / line["seconds"] for line in lines][1:]
                    memory["torch"] = max(memory.get("torch", 0), lines[-1]["mb"])
        middle = lambda values: sorted(values)[len(values) // 2]
        figures = {"length": length, "batch": batch, "tokens_per_second": middle(ours), "peak_mb": memory["ours"]}
        if theirs:
            figures |= {"torch_tokens_per_second": middle(theirs), "ratio": middle(ours) / middle(theirs), "torch_peak_mb": memory["torch"]}
        say("speed", load=os.getloadavg()[0], **figures)


# Trains in a child of its own, so that its peak memory is known.
MEASURE = """
import json, pathlib, resource, shutil, subprocess, sys
program, base, request, folder = sys.argv[1:]
path = pathlib.Path(folder)
(path / "ours.json").write_text(request)
shutil.rmtree(path / "ours", ignore_errors=True)
done = subprocess.run([program, "train", base, path / "ours.json", path / "ours"], capture_output=True, text=True)
print(done.stdout)
sys.stderr.write(done.stderr)
print(json.dumps({"mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024}))
""".replace("print(done.stdout)", "print(done.stdout.strip())")


def numerics(lora, arguments):
    if not arguments.torch:
        return say("numerics", skipped="--torch PYTHON is not given")
    kept = (FIXTURES / "peft_reference.json").read_text()
    try:
        subprocess.run([arguments.torch, FIXTURES / "peft_reference.py", lora.base, lora.program], check=True, capture_output=True)
        fresh = json.loads((FIXTURES / "peft_reference.json").read_text())
    finally:
        (FIXTURES / "peft_reference.json").write_text(kept)
    for name, case in fresh.items():
        with tempfile.TemporaryDirectory() as folder:
            request = {"method": case["method"], "training_file": str(FIXTURES / case["training_file"]), "hyperparameters": case["hyperparameters"]}
            losses = [step["loss"] for step in lora.train(pathlib.Path(folder), **request)["steps"]]
        apart = max(abs(ours - theirs) / theirs for ours, theirs in zip(losses, case["losses"]))
        say("numerics", case=name, steps=len(losses), worst_difference=f"{apart:.5f}", ours=[round(x, 4) for x in losses], torch=[round(x, 4) for x in case["losses"]])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "groundtone/models"
    models = pathlib.Path(os.environ.get("GROUNDTONE_MODELS_DIRECTORY", cache))
    parser.add_argument("--parts", default="labels,voice,speed,numerics")
    parser.add_argument("--voice", type=pathlib.Path)
    parser.add_argument("--torch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=pathlib.Path, default=next(iter(sorted(models.glob("smollm2-135m-instruct-q4_1/*.gguf"))), None))
    arguments, _ = parser.parse_known_args()
    lora = Lora(arguments.base)
    for part in arguments.parts.split(","):
        {"labels": labels, "voice": voice, "speed": speed, "numerics": numerics}[part](lora, arguments)


if __name__ == "__main__":
    main()
