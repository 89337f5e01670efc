"""The four stages of fine-tuning with the official SDK: prepare and validate, upload and create, poll, use and evaluate on held-out rows.

Written for OpenAI's service. Against another server only three things change, and they are the arguments:

    python four_stages.py BASE_URL API_KEY BASE_MODEL

It prints one line of JSON at the end: the model, and how many held-out tickets it labels right, beside the same base model untuned with the same short prompt.
"""

import io
import json
import sys
import time

from openai import OpenAI

BASE_URL, API_KEY, BASE_MODEL = sys.argv[1:4]
client = OpenAI(base_url=BASE_URL, api_key=API_KEY)

# The prompt has shrunk to a sentence; what the labels mean is in the rows.
PROMPT = "Label the ticket: refund, shipping or account."
SUBJECTS = {
    "refund": ["I want my money back for {}", "Please refund the {}", "The {} broke, return my payment", "I was charged twice for {}"],
    "shipping": ["Where is my {}?", "The parcel with the {} has not arrived", "When will you ship the {}?", "The tracking of my {} stands still"],
    "account": ["I cannot log in to see my {}", "Reset my password, I ordered a {}", "Change the e-mail address of my {} account", "Delete my {} profile"],
}
THINGS = ["kettle", "grinder", "scale", "filter", "mug", "teapot"]


# --- 1. prepare and validate ---


def rows_of(things):
    """Every wording of every label with every thing: consistent rows, and labels in turn."""
    texts = [(text.format(thing), label) for thing in things for wordings in zip(*SUBJECTS.values()) for text, label in zip(wordings, SUBJECTS)]
    return [
        {"messages": [{"role": "system", "content": PROMPT}, {"role": "user", "content": text}, {"role": "assistant", "content": label}]}
        for text, label in texts
    ]


def problems(content):
    """What would fail the job, line by line: it is cheaper to find it here."""
    found = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
        try:
            messages = json.loads(line)["messages"]
        except (ValueError, KeyError, TypeError) as error:
            found.append(f"line {number}: {error!r}")
            continue
        if any(message.get("role") not in ("system", "user", "assistant") for message in messages):
            found.append(f"line {number}: a role is missing or unknown")
        if not messages or messages[-1]["role"] != "assistant" or not messages[-1].get("content"):
            found.append(f"line {number}: the assistant has the last word in every row")
    return found


training, held_out = rows_of(THINGS[:3]), rows_of(THINGS[4:])
content = "".join(json.dumps(row) + "\n" for row in training).encode()
broken = content.replace(b'"assistant"', b'"robot"', 1) + b"{half a row\n"
assert problems(content) == [] and len(problems(broken)) == 3, problems(broken)
assert not {json.dumps(row) for row in training} & {json.dumps(row) for row in held_out}, "what is measured was never seen"

# --- 2. upload and create ---

file = client.files.create(file=("tickets.jsonl", io.BytesIO(content)), purpose="fine-tune")
client.files.wait_for_processing(file.id)
job = client.fine_tuning.jobs.create(model=BASE_MODEL, training_file=file.id, suffix="tickets", seed=7)
print(f"job {job.id}: {len(training)} rows", flush=True)

# --- 3. poll, and show what happens ---

seen = set()
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(0.5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    for event in reversed(client.fine_tuning.jobs.list_events(job.id, limit=50).data):
        if event.id not in seen:
            seen.add(event.id)
            print(f"  {event.message}", flush=True)
assert job.status == "succeeded", job.error

# --- 4. use, and evaluate ---


def right(model):
    """How many held-out tickets get exactly their label."""
    count = 0
    for row in held_out:
        answer = client.chat.completions.create(model=model, messages=row["messages"][:-1], temperature=0, max_tokens=4)
        count += (answer.choices[0].message.content or "").strip() == row["messages"][-1]["content"]
    return count


result = {"model": job.fine_tuned_model, "held_out": len(held_out), "tuned": right(job.fine_tuned_model), "untuned": right(BASE_MODEL)}
print(json.dumps(result))
