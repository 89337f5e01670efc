"""Measures the local trainer. Each part prints one JSON line; `--parts` chooses.

    ./gt bench tune [--parts labels,voice,speed,long,decode,modules,numerics,exports,kills] [--voice FOLDER] [--base FILE.gguf] [--torch PYTHON] [--llama-bench PROGRAM] [--kills N]

labels     a three-label support classifier from 60 rows: held-out tickets right, tuned with a short prompt, untuned with a short and with a few-shot prompt; intervals are paired
voice      rows of a brand's voice (FOLDER holds the zava-cora set): held-out answers that keep all its rules, untuned and tuned
speed      tokens/s forward and backward at rows of 64, 256 and 600 tokens, and peak memory; with --torch beside PyTorch and PEFT, turn by turn
long       minutes for 100 rows of 600 tokens in three epochs
decode     tokens/s of long answers with an adapter, without, and with both in one (`tuning.merged_models`), turn by turn; with --llama-bench beside llama.cpp's own bench on the same file
modules    the tickets, with --voice also the voice, with pairs in other matrices and layers: what is learned, how long it takes, what the adapter costs while it answers
numerics   losses beside those of PyTorch and PEFT, computed anew (--torch)
exports    an adapter written as PEFT saves one, and worked into the base: transformers and PEFT load both, and say the same (--torch)
kills      a job of the real server, killed (SIGKILL) at N random instants of its life (--kills N): it ends as it would have, with one result

PYTHON is an interpreter that has torch, transformers, peft and gguf; PROGRAM is built from llama.cpp's tools/llama-bench. A part that needs what was not given says so.
"""

import argparse
import json
import os
import pathlib
import hashlib
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

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
        folder.mkdir(exist_ok=True)
        (folder / "request.json").write_text(json.dumps(request))
        began = time.monotonic()
        lines = self.lines("train", self.base, folder / "request.json", folder / "job")
        return {"adapter": lines[-1]["adapter"], "steps": [line for line in lines if "norm" in line], "seconds": time.monotonic() - began, "tokens": lines[-1]["trained_tokens"]}

    def lines(self, *arguments):
        done = subprocess.run([self.program, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            sys.exit(done.stderr[-2000:])
        return [json.loads(line) for line in done.stdout.splitlines()]

    def ask(self, adapter, rows, tokens):
        return self.lines("ask", self.base, adapter or "-", rows, tokens)

    def decode(self, adapter, rows, tokens):
        return self.lines("decode", self.base, adapter, rows, tokens)


def interval(better, worse, seed=20261127, rounds=10_000):
    """The 95 % bootstrap interval of the mean difference of pairs."""
    differences, dice = [a - b for a, b in zip(better, worse)], random.Random(seed)
    means = sorted(sum(dice.choices(differences, k=len(differences))) / len(differences) for _ in range(rounds))
    return [round(means[int(rounds * 0.025)], 3), round(means[int(rounds * 0.975) - 1], 3)]


def said(row):
    """Question and answer of a row with a system message."""
    return row["messages"][1]["content"], row["messages"][2]["content"]


def label_named(answer):
    """Generous to the untuned model: a label counts wherever it is the first one that the answer names."""
    return next(iter(re.findall("|".join(LABELS), answer["answer"].lower())), "")


def labels(lora, _arguments):
    train, test = read(FIXTURES / "support_train.jsonl"), read(FIXTURES / "support_test.jsonl")
    system = train[0]["messages"][0]["content"]
    shots = [said(row) for row in train[:15]]
    few = RULES + "\n\nExamples:\n" + "\n".join(f"Ticket: {ticket}\nLabel: {label}" for ticket, label in shots)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = lora.train(folder, method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters={"n_epochs": 4, "learning_rate_multiplier": 2.0})
        arms = {
            "tuned": (done["adapter"], [chat(system, said(row)[0]) for row in test]),
            "short": (None, [chat(SHORT, said(row)[0]) for row in test]),
            "few_shot": (None, [chat(few, "Ticket: " + said(row)[0] + "\nLabel:") for row in test]),
        }
        right, prompts, seconds = {}, {}, {}
        for arm, (adapter, rows) in arms.items():
            answers = lora.ask(adapter, write(folder / f"{arm}.jsonl", rows), 8)
            right[arm] = [int(label_named(answer) == said(row)[1]) for answer, row in zip(answers, test)]
            prompts[arm] = sum(answer["usage"]["prompt_tokens"] for answer in answers) / len(answers)
            seconds[arm] = sum(answer["seconds"] for answer in answers) / len(answers)
        exact = sum(answer["answer"].strip() == said(row)[1] for answer, row in zip(lora.ask(done["adapter"], folder / "tuned.jsonl", 8), test))
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


def voice_rows(folder):
    """Cora's system message, and her questions and answers, 20 to train on and 30 to ask."""
    raw = folder / "raw"
    system = read(raw / "31-basic_training.jsonl")[0]["messages"][0]["content"]
    pairs = {}
    for name in ["31-basic_training.jsonl", "31-basic_validation.jsonl", "30-basic-datagen.jsonl"]:
        for row in read(raw / name):
            pairs.setdefault(row["messages"][-2]["content"], (row["messages"][-1]["content"], name))
    rows = [(question, answer) for question, (answer, _) in pairs.items()]
    random.Random(1).shuffle(rows)
    return system, rows[30:], rows[:30]


def voice(lora, arguments):
    if not arguments.voice:
        return say("voice", skipped="--voice FOLDER is not given")
    system, train, test = voice_rows(arguments.voice)
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        file = write(folder / "train.jsonl", [chat(system, question, answer) for question, answer in train])
        done = lora.train(folder, method="supervised", training_file=str(file), hyperparameters={"n_epochs": 20, "learning_rate_multiplier": 2.0})
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
        if length == 600:
            figures["minutes_of_100_such_rows_3_epochs_extrapolated"] = 100 * 3 * length / middle(ours) / 60
        if theirs:
            figures |= {"torch_tokens_per_second": middle(theirs), "ratio": middle(ours) / middle(theirs), "torch_peak_mb": memory["torch"]}
        say("speed", load=os.getloadavg()[0], **figures)


def long(lora, _arguments):
    """100 rows of 600 tokens, three epochs, from the first step to the adapter."""
    with tempfile.TemporaryDirectory() as name:
        folder, make = pathlib.Path(name), padded_row(600)
        file = write(folder / "rows.jsonl", [make(at) for at in range(100)])
        done = lora.train(folder, method="supervised", training_file=str(file), hyperparameters={"n_epochs": 3, "batch_size": 4})
    say("long", load=os.getloadavg()[0], minutes=done["seconds"] / 60, tokens=sum(step["tokens"] for step in done["steps"]), steps=len(done["steps"]))


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


# Which matrices get a pair, with the words of the documentation.
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
CHOICES = {
    "all seven": {},
    "all seven, upper 15": {"trained_layers": 15},
    "gate, up, down": {"target_modules": FEED_FORWARD},
    "gate, up, down, upper 15": {"target_modules": FEED_FORWARD, "trained_layers": 15},
    "v, o, down": {"target_modules": ["v_proj", "o_proj", "down_proj"]},
    "q, v": {"target_modules": ["q_proj", "v_proj"]},
}


# Training that changes nothing: the adapter costs what its size costs.
HARDLY = {"n_epochs": 1, "batch_size": 60, "learning_rate_multiplier": 0.001}


def long_stories(path):
    stories = "a lighthouse keeper|a lost parcel|two cyclists|an old kettle|a mountain hut|a red bicycle|the last train|a clockmaker".split("|")
    return write(path, [chat("You tell long stories.", f"Tell me a long story about {story}.") for story in stories])


def cost(pairs, name):
    return 1 - statistics.median(pair[name] / pair["base"] for pair in pairs)


def modules(lora, arguments):
    """The same rows with pairs in other matrices: what was learned, how long it took, and what the adapter costs while it answers."""
    test = read(FIXTURES / "support_test.jsonl")
    for choice, chosen in CHOICES.items():
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            done = lora.train(folder / "labels", method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters={"n_epochs": 4, "learning_rate_multiplier": 2.0} | chosen)
            answers = lora.ask(done["adapter"], write(folder / "tickets.jsonl", [chat(row["messages"][0]["content"], said(row)[0]) for row in test]), 8)
            # One that knows nothing but labels would write one word.
            untaught = lora.train(folder / "untaught", method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters=HARDLY | chosen)
            pairs = lora.decode(untaught["adapter"], long_stories(folder / "asked.jsonl"), 200)
            figures = {"labels": sum(label_named(answer) == said(row)[1] for answer, row in zip(answers, test)), "labels_seconds": done["seconds"]}
            figures |= {"costs": cost(pairs, "adapter"), "megabytes": pathlib.Path(done["adapter"]).stat().st_size / 1e6}
            if arguments.voice:
                system, train, held_out = voice_rows(arguments.voice)
                file = write(folder / "train.jsonl", [chat(system, *row) for row in train])
                done = lora.train(folder / "voice", method="supervised", training_file=str(file), hyperparameters={"n_epochs": 20, "learning_rate_multiplier": 2.0} | chosen)
                answers = lora.ask(done["adapter"], write(folder / "asked.jsonl", [chat(system, question) for question, _ in held_out]), 60)
                figures |= {"voice": sum(all(keeps(answer["answer"]).values()) for answer in answers), "voice_seconds": done["seconds"]}
        say("modules", choice=choice, load=os.getloadavg()[0], **figures)


def decode(lora, arguments):
    """Long answers to the same questions without an adapter, with one that was hardly trained (its size is what costs), and with base and adapter in one, turn by turn. Reading the prompt is not counted.
    A machine that others share is quick and slow by turns, so what an adapter costs is the median of the pairs, and llama-bench takes its turn in every round."""
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        asked = long_stories(folder / "asked.jsonl")
        adapters = {}
        for layers in ("all", 15):
            chosen = {} if layers == "all" else {"trained_layers": layers}
            done = lora.train(folder / str(layers), method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters=HARDLY | chosen)
            adapters[layers] = done["adapter"]
        pairs, beside = {layers: [] for layers in adapters}, []
        for _ in range(arguments.rounds):
            found = []
            for layers, adapter in adapters.items():
                found += (pairs_now := lora.decode(adapter, asked, 200))
                pairs[layers] += pairs_now
            if arguments.llama_bench:
                done_there = checked([arguments.llama_bench, "-m", lora.base, "-p", "0", "-n", "200", "-r", "4", "-t", str(os.cpu_count()), "-o", "json"])
                theirs = json.loads(done_there.stdout)[0]["samples_ts"]
                beside.append((statistics.median(pair["base"] for pair in found), statistics.median(theirs)))
    ours = [pair["base"] for found in pairs.values() for pair in found]
    figures = {"base_tokens_per_second": statistics.median(ours)}
    for layers, found in pairs.items():
        figures[f"adapter_in_{layers}_layers_costs"] = cost(found, "adapter")
    figures["merged_costs"] = cost([pair for found in pairs.values() for pair in found], "merged")
    if beside:
        figures["llama_bench_tokens_per_second"] = statistics.median(theirs for _, theirs in beside)
        figures["of_llama_bench"] = statistics.median(ours / theirs for ours, theirs in beside)
    say("decode", load=os.getloadavg()[0], pairs=len(ours), **figures)


def numerics(lora, arguments):
    if not arguments.torch:
        return say("numerics", skipped="--torch PYTHON is not given")
    with tempfile.TemporaryDirectory() as name:
        out = pathlib.Path(name) / "reference.json"
        checked([arguments.torch, FIXTURES / "peft_reference.py", lora.base, lora.program, out])
        fresh = json.loads(out.read_text())
    for name, case in fresh.items():
        with tempfile.TemporaryDirectory() as folder:
            request = {"method": case["method"], "training_file": str(FIXTURES / case["training_file"]), "hyperparameters": case["hyperparameters"]}
            losses = [step["loss"] for step in lora.train(pathlib.Path(folder), **request)["steps"]]
        apart = max(abs(ours - theirs) / theirs for ours, theirs in zip(losses, case["losses"]))
        say("numerics", case=name, steps=len(losses), worst_difference=f"{apart:.5f}", ours=[round(x, 4) for x in losses], torch=[round(x, 4) for x in case["losses"]])


EXPORTED = """
import json, sys
sys.path.insert(0, sys.argv[1])
import torch
import peft_reference as reference
from transformers import AutoModelForCausalLM
base, peft, merged = sys.argv[2:5]
model, tokenizer = reference.load(base)
ids = torch.tensor([reference.encode(tokenizer, [{"role": "user", "content": "I was charged twice."}, {"role": "assistant", "content": "billing"}])[0]])
with torch.no_grad():
    plain = model(input_ids=ids).logits[0]
    tuned = reference.adapted(model, peft)(input_ids=ids).logits[0]
    whole = AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)(input_ids=ids).logits[0]
print(json.dumps({"tokens": ids.numel(), "adapter_moves": (tuned - plain).abs().max().item(), "apart": (tuned - whole).abs().max().item(), "same_tokens": (tuned.argmax(-1) == whole.argmax(-1)).float().mean().item()}))
"""


def exports(lora, arguments):
    if not arguments.torch:
        return say("exports", skipped="--torch PYTHON is not given")
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        done = lora.train(folder, method="supervised", training_file=str(FIXTURES / "support_train.jsonl"), hyperparameters={"n_epochs": 1, "learning_rate_multiplier": 2.0, "trained_layers": 6})
        checked([lora.program, "peft", done["adapter"], lora.base, folder / "peft"])
        checked([lora.program, "merged", done["adapter"], lora.base, folder / "merged"])
        found = checked([arguments.torch, "-c", EXPORTED, FIXTURES, lora.base, folder / "peft", folder / "merged"])
    figures = json.loads(found.stdout.splitlines()[-1])
    # The merged weights are in half precision, so logits differ in their third digit.
    if figures["adapter_moves"] < 0.1 or figures["apart"] > 0.1:
        sys.exit(f"exports: {figures}")
    say("exports", **figures)


class Served:
    """The real server on a data directory of its own, with trainings of a second."""

    def __init__(self, binary, folder):
        self.binary, self.folder, self.process = binary, folder, None
        documents = folder / "documents"
        documents.mkdir()
        (documents / "returns.md").write_text("# Returns\n\nYou can send your grinder back within 45 days of delivery.\n")
        (folder / "groundtone.toml").write_text(
            '[tuning]\nbase_models = ["base=smollm2-135m-instruct-q4_1"]\ntrained_layers = 1\nrank = 2\nmax_row_tokens = 64\ncheckpoint_every = 2\n'
        )
        self.run("ingest", str(documents))

    def environment(self):
        return {**os.environ, "GROUNDTONE_DATA_DIRECTORY": str(self.folder / "data"), "GROUNDTONE_OFFLINE": "1"}

    def run(self, *arguments):
        return checked([self.binary, *arguments], cwd=self.folder, env=self.environment())

    def start(self):
        self.process = subprocess.Popen([self.binary, "serve", "--port", "0"], cwd=self.folder, env=self.environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            if found := re.search(r"http://[0-9.:]+", line):
                self.address = found[0]
                return
        sys.exit("kills: the server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def get(self, path):
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.loads(answer.read())

    def post(self, path, body):
        request = urllib.request.Request(self.address + path, json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.loads(answer.read())

    def until_over(self, job, seconds=300):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.get(f"/v1/fine_tuning/jobs/{job}")
            if found["status"] in ("succeeded", "failed", "cancelled"):
                return found
            time.sleep(0.05)
        sys.exit(f"kills: job {job} did not end: {found}")

    def result(self, job):
        """What a job left: the losses of every step and the bytes of its adapter."""
        request = urllib.request.Request(f"{self.address}/v1/files/{job['result_files'][0]}/content", headers={"accept": "text/csv"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            losses = answer.read().decode()
        adapter = (self.folder / "data/tuning/default" / job["id"] / "run/adapter.gguf").read_bytes()
        return losses, hashlib.sha256(adapter).hexdigest(), job["trained_tokens"]


def kills(_lora, arguments):
    random_instants = random.Random(20261127)
    with tempfile.TemporaryDirectory() as name:
        served = Served(arguments.binary, pathlib.Path(name))
        rows = write(served.folder / "rows.jsonl", [{"messages": [{"role": "user", "content": f"Ticket {at}"}, {"role": "assistant", "content": LABELS[at % 3]}]} for at in range(12)])
        served.start()
        uploaded = json.loads(served.run("tune", "create", str(rows), "--model", "base", "--epochs", "3", "--batch-size", "2", "--seed", "7", "--json").stdout.splitlines()[-1])
        calm = served.until_over(uploaded["id"])
        expected, body = served.result(calm), {"model": "base", "training_file": calm["training_file"], "seed": 7, "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3, "batch_size": 2}}}}
        # A whole life, from the request to the end, of a job that finds the model loaded.
        began = time.monotonic()
        served.until_over(served.post("/v1/fine_tuning/jobs", body)["id"])
        life = time.monotonic() - began
        at, redone, most_redone, trained_before, statuses = [], 0, 0, [], {}
        for _ in range(arguments.kills):
            instant = random_instants.uniform(0, life)
            job = served.post("/v1/fine_tuning/jobs", body)["id"]
            time.sleep(instant)
            seen = served.get(f"/v1/fine_tuning/jobs/{job}")
            served.kill()
            at.append(instant)
            statuses[seen["status"]] = statuses.get(seen["status"], 0) + 1
            served.start()
            over = served.until_over(job)
            if over["status"] != "succeeded" or served.result(over) != expected or len(over["result_files"]) != 1:
                sys.exit(f"kills: killed after {instant:.3f} s the job ended otherwise: {over}")
            events = served.get(f"/v1/fine_tuning/jobs/{job}/events?limit=1000")["data"]
            went_on = [event["data"]["resumed_at"] for event in events if "resumed_at" in (event["data"] or {})]
            steps = [event["data"]["step"] for event in events if event["type"] == "metrics"]
            again = len(steps) - len(set(steps))
            redone, most_redone = redone + again, max(most_redone, again)
            trained_before.append(max(went_on, default=0))
            # checkpoint_every is 2: at most the step behind the last checkpoint, and the one that was being written, are done again.
            if again > 2 or set(steps) != set(range(1, 19)):
                sys.exit(f"kills: {again} steps were done again after a kill at {instant:.3f} s")
        models = [model["id"] for model in served.get("/v1/models")["data"] if model["id"].startswith("ft:")]
        served.kill()
        if len(models) != arguments.kills + 2:
            sys.exit(f"kills: {len(models)} models of {arguments.kills + 2} jobs")
    say("kills", kills=len(at), life_seconds=life, first=min(at, default=0.0), last=max(at, default=0.0), while_it_was=statuses, went_on_after_a_checkpoint=sum(step > 0 for step in trained_before), steps_done_again=redone, most_after_one_kill=most_redone)


def checked(command, **more):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **more)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr[-2000:]}")
    return done


PARTS = {"labels": labels, "voice": voice, "speed": speed, "long": long, "decode": decode, "modules": modules, "numerics": numerics, "exports": exports, "kills": kills}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "groundtone/models"
    models = pathlib.Path(os.environ.get("GROUNDTONE_MODELS_DIRECTORY", cache))
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--binary", type=pathlib.Path, default=pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/groundtone")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--voice", type=pathlib.Path)
    parser.add_argument("--torch")
    parser.add_argument("--llama-bench", type=pathlib.Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--base", type=pathlib.Path, default=next(iter(sorted(models.glob("smollm2-135m-instruct-q4_1/*.gguf"))), None))
    arguments, _ = parser.parse_known_args()
    unknown = [part for part in arguments.parts.split(",") if part not in PARTS]
    if unknown or arguments.base is None:
        parser.error(f"no part is called {unknown[0]}" if unknown else "the base model is not here: run `groundtone models pull`, or name a file with --base")
    lora = Lora(arguments.base)
    for part in arguments.parts.split(","):
        PARTS[part](lora, arguments)


if __name__ == "__main__":
    main()
