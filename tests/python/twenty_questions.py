"""Asks a server every question of a JSONL file; says how often the right document is retrieved, cited, and how often the answer holds the fact, and what became of the citations.

The last line is a JSON object with the counts.
"""

import json
import sys
import time

from openai import OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="unused", timeout=300)
model = client.models.list().data[0].id
counts = {"questions": 0, "retrieved": 0, "cited": 0, "right": 0, "abstained": 0, "unresolved": 0}
statuses = {}
seconds = []
for line in open(sys.argv[2], encoding="utf-8"):
    row = json.loads(line)
    started = time.time()
    answer = client.chat.completions.create(model=model, messages=[{"role": "user", "content": row["question"]}], temperature=0)
    seconds.append(time.time() - started)
    text = answer.choices[0].message.content
    details = answer.model_extra["groundtone"]
    retrieved = bool({source["document"] for source in details["sources"]} & set(row["documents"]))
    cited = [annotation.url_citation.url for annotation in answer.choices[0].message.annotations]
    right_cited = any(url.endswith(document) for url in cited for document in row["documents"])
    right = all(fact.lower() in text.lower() for fact in row["must_contain"])
    counts["questions"] += 1
    counts["retrieved"] += retrieved
    counts["cited"] += right_cited
    counts["right"] += right
    counts["abstained"] += details["abstained"]
    counts["unresolved"] += len(details["unresolved_markers"])
    for citation in details["citations"]:
        statuses[citation["status"]] = statuses.get(citation["status"], 0) + 1
    marks = "".join(letter if flag else "-" for letter, flag in zip("rca", (retrieved, right_cited, right)))
    print(f"{row['id']} {marks} {seconds[-1]:4.1f}s  {row['question']}\n      {text.strip()!r}")
seconds.sort()
counts["p50_seconds"] = round(seconds[len(seconds) // 2], 2)
counts["max_seconds"] = round(seconds[-1], 2)
counts["citations"] = statuses
print(json.dumps(counts))
