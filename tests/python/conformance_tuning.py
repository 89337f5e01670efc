"""The official openai package, unmodified, against the fine-tuning API and the trainer of this process: one line `ok NAME` for each case of docs/reference/conformance.md.

Arguments: base URL, base model, port for the webhook's receiver, its secret.
"""

import asyncio
import base64
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import sys
import threading
import time

import openai
from cases import KEY, case, run
from openai import AsyncOpenAI, OpenAI

URL, MODEL, PORT, SECRET = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
client = OpenAI(base_url=URL, api_key=KEY, max_retries=0, webhook_secret=SECRET)
# Who makes the first job: the server itself, where a proxy stands in between.
maker = OpenAI(base_url=os.environ.get("GROUNDTONE_TEST_MAKER", URL), api_key=KEY, max_retries=0)
LABELS = ["refund", "shipping", "other"]


def refused(error, call, status, **fields):
    try:
        call()
    except error as found:
        assert found.status_code == status, found
        assert set(found.response.json()["error"]) == {"message", "type", "param", "code"}, found.response.text
        for name, value in fields.items():
            assert getattr(found, name) == value, f"`{name}` is {getattr(found, name)!r}, not {value!r}: {found}"
        return found
    raise AssertionError("it was accepted")


def strict(raw):
    """What came, read by the SDK's own types without any leniency."""
    parsed = raw.parse()
    kind = type(parsed)
    return kind.model_validate_json(raw.text, strict=True)


def row(number, weight=None):
    answer = {"role": "assistant", "content": LABELS[number % 3]}
    if weight is not None:
        answer["weight"] = weight
    return {"messages": [{"role": "system", "content": "Label it."}, {"role": "user", "content": f"Ticket {number}"}, answer]}


def jsonl(rows):
    return "".join(json.dumps(r) + "\n" for r in rows).encode()


def preference(number):
    message = lambda text: [{"role": "assistant", "content": text}]
    return {
        "input": {"messages": [{"role": "user", "content": f"Ticket {number}"}]},
        "preferred_output": message("refund"),
        "non_preferred_output": message("I would think that this may be a refund."),
    }


def upload(rows=None, name="rows.jsonl", by=client, **options):
    content = rows if isinstance(rows, bytes) else jsonl(rows or [row(n) for n in range(12)])
    return by.files.create(file=(name, io.BytesIO(content)), purpose="fine-tune", **options)


def create(file=None, by=client, **options):
    options.setdefault("hyperparameters", {"n_epochs": 1, "batch_size": 4})
    if options["hyperparameters"] is None:
        del options["hyperparameters"]
    return by.fine_tuning.jobs.create(model=MODEL, training_file=file or upload().id, **options)


def until(job, *statuses, seconds=120, by=client):
    """Polls, as users do."""
    end = time.monotonic() + seconds
    while job.status not in statuses:
        assert time.monotonic() < end and job.status not in ("failed", "cancelled", "succeeded"), job
        time.sleep(0.05)
        job = by.fine_tuning.jobs.retrieve(job.id)
    return job


def own_status(job):
    return job.model_extra["groundtone"]["status"]


received = []


class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        received.append((dict(self.headers), body))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_):
        pass


threading.Thread(target=http.server.HTTPServer(("127.0.0.1", PORT), Receiver).serve_forever, daemon=True).start()

# One job that trains in earnest; half of the cases look at what it left.
training, validation = upload(by=maker), upload([row(n) for n in range(100, 104)], "held-out.jsonl", by=maker)
FIRST = create(
    training.id,
    by=maker,
    validation_file=validation.id,
    suffix="labels",
    seed=7,
    metadata={"team": "support", "it's": "1"},
    hyperparameters=None,
    method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 1.5}}},
)
DONE = until(FIRST, "succeeded", by=maker)
TUNED = DONE.fine_tuned_model


def said(job, **options):
    return list(client.fine_tuning.jobs.list_events(job.id, **options))


# --- files ---


@case
def files_for_training():
    file = strict(client.files.with_raw_response.create(file=("a.jsonl", io.BytesIO(jsonl([row(1)]))), purpose="fine-tune"))
    assert file.status == "processed" and file.purpose == "fine-tune" and file.expires_at is None
    assert client.files.delete(file.id).deleted


@case
def files_for_training_must_be_jsonl():
    found = refused(openai.BadRequestError, lambda: upload(name="rows.csv"), 400, param="file", type="invalid_request_error")
    assert "Must be .jsonl" in found.message


@case
def files_wait_for_processing():
    began = time.monotonic()
    assert client.files.wait_for_processing(training.id, poll_interval=5).status == "processed"
    assert time.monotonic() - began < 4, "it was polled"


@case
def files_content_is_the_bytes():
    assert client.files.content(training.id).read() == jsonl([row(n) for n in range(12)])


@case
def files_listed_by_purpose():
    assert {f.purpose for f in client.files.list(purpose="fine-tune")} == {"fine-tune"}
    assert DONE.result_files[0] in [f.id for f in client.files.list(purpose="fine-tune-results")]
    page = client.files.with_raw_response.list(purpose="fine-tune", limit=1)
    assert {"object", "data", "first_id", "last_id", "has_more"} <= set(json.loads(page.text))


@case
def files_pages_go_on():
    made = [upload([row(n)]).id for n in range(5)]
    listed = [f.id for f in client.files.list(purpose="fine-tune", limit=2)]
    assert listed[:5] == made[::-1] and len(listed) == len(set(listed))
    assert [f.id for f in client.files.list(purpose="fine-tune", limit=2, order="asc")] == listed[::-1]
    [client.files.delete(file) for file in made]


@case
def files_that_expire():
    file = upload(expires_after={"anchor": "created_at", "seconds": 3600})
    assert file.expires_at == file.created_at + 3600 and client.files.retrieve(file.id).expires_at == file.expires_at
    client.files.delete(file.id)


@case
def files_that_expire_too_soon():
    for seconds in (3599, 2592001):
        refused(
            openai.BadRequestError,
            lambda: upload(expires_after={"anchor": "created_at", "seconds": seconds}),
            400,
            param="expires_after.seconds",
        )


@case
def files_too_large():
    refused(openai.APIStatusError, lambda: upload(b"x" * 1_100_000), 413)
    assert client.models.list().data, "the connection is usable"


@case
def files_past_the_quota():
    made = []
    found = None
    for _ in range(8):
        try:
            made.append(upload(b"x" * 1_000_000).id)
        except openai.BadRequestError as error:
            found = error
            break
    assert found and "no room" in found.message, "the disk would fill"
    [client.files.delete(file) for file in made]
    client.files.delete(upload().id)


@case
def files_without_v1():
    bare = OpenAI(base_url=URL.removesuffix("/v1"), api_key=KEY, max_retries=0)
    file = bare.files.create(file=("a.jsonl", io.BytesIO(jsonl([row(1)]))), purpose="fine-tune")
    assert bare.files.retrieve(file.id).id == file.id and bare.fine_tuning.jobs.retrieve(FIRST.id).id == FIRST.id
    assert bare.files.delete(file.id).deleted


@case
def files_of_results_are_the_servers():
    call = lambda: client.files.create(file=("a.csv", io.BytesIO(b"x")), purpose="fine-tune-results")
    refused(openai.BadRequestError, call, 400, param="purpose")


@case
def files_that_are_deleted_are_gone():
    file = upload()
    assert client.files.delete(file.id).object == "file"
    refused(openai.NotFoundError, lambda: client.files.content(file.id), 404)
    refused(openai.NotFoundError, lambda: client.files.delete(file.id), 404)


# --- uploads ---


def begin(content, **options):
    options = {"filename": "big.jsonl", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/jsonl", **options}
    return client.uploads.create(**options)


def part(up, content):
    return client.uploads.parts.create(up.id, data=content).id


@case
def uploads_in_the_order_that_is_said():
    up = strict(client.uploads.with_raw_response.create(filename="big.jsonl", purpose="fine-tune", bytes=9, mime_type="text/jsonl"))
    assert up.status == "pending" and up.object == "upload" and up.expires_at == up.created_at + 3600 and up.file is None
    third, first, second = part(up, b"789"), part(up, b"123"), part(up, b"456")
    done = strict(client.uploads.with_raw_response.complete(up.id, part_ids=[first, second, third]))
    assert done.status == "completed" and done.file.purpose == "fine-tune" and done.file.filename == "big.jsonl"
    assert client.files.content(done.file.id).read() == b"123456789"
    client.files.delete(done.file.id)


@case
def uploads_of_parts_at_the_same_time():
    pieces = [bytes([65 + n]) * 20_000 for n in range(8)]
    up = begin(b"".join(pieces))

    async def send():
        other = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        return await asyncio.gather(*[other.uploads.parts.create(up.id, data=piece) for piece in pieces])

    parts = asyncio.run(send())
    done = client.uploads.complete(up.id, part_ids=[p.id for p in parts])
    assert client.files.content(done.file.id).read() == b"".join(pieces)
    client.files.delete(done.file.id)


@case
def uploads_with_a_checksum():
    content = jsonl([row(n) for n in range(12)])
    up = begin(content)
    parts = [part(up, content)]
    refused(openai.BadRequestError, lambda: client.uploads.complete(up.id, part_ids=parts, md5="0" * 32), 400, param="md5")
    done = client.uploads.complete(up.id, part_ids=parts, md5=hashlib.md5(content).hexdigest())
    assert done.file.bytes == len(content)
    client.files.delete(done.file.id)


@case
def uploads_must_be_as_long_as_they_said():
    up = begin(b"123456")
    parts = [part(up, b"123")]
    refused(openai.BadRequestError, lambda: client.uploads.complete(up.id, part_ids=parts), 400, param="part_ids")
    refused(openai.BadRequestError, lambda: part(up, b"4567"), 400, param="data")
    client.uploads.cancel(up.id)


@case
def uploads_with_parts_of_another():
    one, other = begin(b"123"), begin(b"123")
    stranger = part(other, b"123")
    refused(openai.BadRequestError, lambda: client.uploads.complete(one.id, part_ids=[stranger]), 400, param="part_ids")
    [client.uploads.cancel(up.id) for up in (one, other)]


@case
def uploads_cancelled():
    up = begin(b"123")
    part(up, b"123")
    assert client.uploads.cancel(up.id).status == "cancelled"
    refused(openai.BadRequestError, lambda: part(up, b"123"), 400)
    refused(openai.BadRequestError, lambda: client.uploads.cancel(up.id), 400)


@case
def uploads_completed_take_no_more_parts():
    up = begin(b"123")
    done = client.uploads.complete(up.id, part_ids=[part(up, b"123")])
    refused(openai.BadRequestError, lambda: part(up, b"4"), 400)
    refused(openai.BadRequestError, lambda: client.uploads.complete(up.id, part_ids=[]), 400)
    client.files.delete(done.file.id)


@case
def uploads_by_the_helper():
    content = jsonl([row(n) for n in range(50)])
    done = client.uploads.upload_file_chunked(
        file=content, filename="big.jsonl", bytes=len(content), mime_type="text/jsonl", purpose="fine-tune", part_size=1000
    )
    assert done.status == "completed" and client.files.content(done.file.id).read() == content
    client.files.delete(done.file.id)


@case
def uploads_that_cannot_fit():
    refused(openai.BadRequestError, lambda: begin(b"", bytes=1 << 40), 400, param="bytes")
    refused(openai.BadRequestError, lambda: begin(b""), 400, param="bytes")
    refused(openai.BadRequestError, lambda: begin(b"123", purpose="magic"), 400, param="purpose")
    refused(openai.NotFoundError, lambda: client.uploads.cancel("upload_nobody"), 404)


# --- making jobs ---


@case
def jobs_have_every_field_at_once():
    raw = client.fine_tuning.jobs.with_raw_response.create(model=MODEL, training_file=training.id)
    job = strict(raw)
    assert job.object == "fine_tuning.job" and job.id.startswith("ftjob-") and job.status in ("validating_files", "queued", "running")
    keys = "id object created_at error fine_tuned_model finished_at hyperparameters model organization_id result_files seed status trained_tokens training_file validation_file"
    fields = json.loads(raw.text)
    assert set(keys.split()) <= set(fields) and fields["error"] is None and fields["result_files"] == [] and fields["fine_tuned_model"] is None
    assert job.hyperparameters.n_epochs == "auto" and job.method.type == "supervised" and 0 <= job.seed <= 2147483647
    client.fine_tuning.jobs.cancel(job.id)


@case
def jobs_keep_what_they_were_made_with():
    for job in (FIRST, client.fine_tuning.jobs.retrieve(FIRST.id)):
        assert (job.model, job.seed, job.training_file, job.validation_file) == (MODEL, 7, training.id, validation.id)
        assert job.metadata == {"team": "support", "it's": "1"} and job.method.supervised.hyperparameters.learning_rate_multiplier == 1.5
        assert job.hyperparameters.n_epochs == 2 and job.integrations == []


@case
def jobs_with_the_older_hyperparameters():
    job = create(hyperparameters={"n_epochs": 3, "batch_size": "auto", "learning_rate_multiplier": 0.1})
    assert job.hyperparameters.n_epochs == 3 and job.method.supervised.hyperparameters.batch_size == "auto"
    client.fine_tuning.jobs.cancel(job.id)


@case
def jobs_of_preferences():
    file = upload([preference(n) for n in range(12)])
    job = create(file.id, hyperparameters=None, method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.2, "n_epochs": 1, "batch_size": 8}}})
    assert job.method.type == "dpo" and job.method.dpo.hyperparameters.beta == 0.2 and job.hyperparameters is not None
    done = until(job, "succeeded")
    assert done.fine_tuned_model and done.method.dpo.hyperparameters.n_epochs == 1
    client.models.delete(done.fine_tuned_model)


@case
def jobs_by_reinforcement_are_refused():
    method = {"type": "reinforcement", "reinforcement": {"grader": {"type": "string_check", "name": "x", "input": "a", "operation": "eq", "reference": "a"}}}
    found = refused(openai.BadRequestError, lambda: create(hyperparameters=None, method=method), 400, param="method.type")
    assert "supervised" in found.message


@case
def jobs_of_an_unmapped_model_are_refused_with_the_list():
    call = lambda: client.fine_tuning.jobs.create(model="gpt-4.1-2025-04-14", training_file=training.id)
    found = refused(openai.BadRequestError, call, 400, param="model", code="model_not_available")
    assert MODEL in found.message


@case
def jobs_of_files_that_are_not_there():
    refused(openai.BadRequestError, lambda: create("file-nobody"), 400, param="training_file")
    refused(openai.BadRequestError, lambda: create(training.id, validation_file="file-nobody"), 400, param="validation_file")


@case
def jobs_of_files_for_something_else():
    file = client.files.create(file=("a.jsonl", io.BytesIO(jsonl([row(1)]))), purpose="user_data")
    found = refused(openai.BadRequestError, lambda: create(file.id), 400, param="training_file")
    assert "fine-tune" in found.message
    client.files.delete(file.id)


@case
def jobs_with_numbers_out_of_range():
    for name, value in [("n_epochs", 0), ("n_epochs", 51), ("batch_size", 257), ("learning_rate_multiplier", 0), ("learning_rate_multiplier", "high")]:
        refused(openai.BadRequestError, lambda: create(training.id, hyperparameters={name: value}), 400, param=f"hyperparameters.{name}")


@case
def jobs_with_other_fields_out_of_range():
    refused(openai.BadRequestError, lambda: create(training.id, suffix="x" * 65), 400, param="suffix")
    refused(openai.BadRequestError, lambda: create(training.id, seed=2147483648), 400, param="seed")
    refused(openai.BadRequestError, lambda: create(training.id, metadata={"k": "v" * 513}), 400, param="metadata")
    refused(openai.BadRequestError, lambda: create(training.id, integrations=[{"type": "wandb", "wandb": {"project": "p"}}]), 400, param="integrations")
    refused(openai.BadRequestError, lambda: create(training.id, validation_file=training.id), 400, param="validation_file")


@case
def jobs_of_too_few_rows_fail():
    job = until(create(upload([row(n) for n in range(3)]).id), "failed")
    error = job.error
    assert (error.code, error.param) == ("invalid_n_examples", "training_file")
    assert error.message == "Training file has 3 example(s), but must have at least 10 examples"
    assert job.finished_at and job.fine_tuned_model is None and job.result_files == []
    assert any(e.level == "error" for e in said(job))


@case
def jobs_of_broken_rows_fail_and_name_them():
    broken = [
        jsonl([row(n) for n in range(11)]) + b"{broken\n",
        jsonl([row(n) for n in range(11)]) + b"\xff\xfe\n",
        jsonl([row(n) for n in range(11)] + [{"messages": [{"role": "user", "content": "x"}]}]),
        jsonl([row(n) for n in range(11)] + [{"messages": [{"role": "wizard", "content": "x"}, {"role": "assistant", "content": "y"}]}]),
    ]
    for content in broken:
        error = until(create(upload(content).id), "failed").error
        assert error.param == "training_file" and "12" in error.message, error


@case
def jobs_made_once_for_a_key():
    key = {"Idempotency-Key": "one-job"}
    one = create(training.id, extra_headers=key)
    assert create(training.id, extra_headers=key).id == one.id
    refused(openai.BadRequestError, lambda: create(training.id, suffix="other", extra_headers=key), 400)
    client.fine_tuning.jobs.cancel(one.id)
    assert create(training.id, extra_headers=key).id == one.id, "a job that is over is given back as well"


# --- looking at jobs ---


@case
def jobs_unknown():
    for call in (client.fine_tuning.jobs.retrieve, client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.list_events):
        refused(openai.NotFoundError, lambda: call("ftjob-nobody"), 404)


@case
def jobs_listed_page_by_page():
    ids = [job.id for job in client.fine_tuning.jobs.list(limit=2)]
    assert len(ids) == len(set(ids)) and ids[-1] == FIRST.id and ids == [j.id for j in client.fine_tuning.jobs.list()]
    last = client.fine_tuning.jobs.list(limit=1, after=ids[-2])
    assert [j.id for j in last.data] == [FIRST.id] and last.has_more is False
    assert client.fine_tuning.jobs.list(after=ids[-1]).data == []
    refused(openai.BadRequestError, lambda: client.fine_tuning.jobs.list(limit=0), 400, param="limit")


@case
def jobs_found_by_their_notes():
    found = lambda **metadata: [j.id for j in client.fine_tuning.jobs.list(metadata=metadata)]
    assert found(team="support") == [FIRST.id] and found(**{"team": "support", "it's": "1"}) == [FIRST.id] and found(team="sales") == []


@case
def jobs_that_succeed_name_their_model():
    job = strict(client.fine_tuning.jobs.with_raw_response.retrieve(FIRST.id))
    assert re.fullmatch(rf"ft:{re.escape(MODEL)}:[^:]+:labels:[A-Za-z0-9]{{8}}", job.fine_tuned_model), job.fine_tuned_model
    assert job.finished_at >= job.created_at and job.error is None and job.estimated_finish is None and len(job.result_files) == 1
    assert isinstance(job.trained_tokens, int) and 0 < job.trained_tokens < 2**32


@case
def jobs_without_a_suffix_keep_both_colons():
    job = until(create(training.id), "succeeded")
    assert re.fullmatch(rf"ft:{re.escape(MODEL)}:[^:]+::[A-Za-z0-9]{{8}}", job.fine_tuned_model), job.fine_tuned_model
    client.models.delete(job.fine_tuned_model)


@case
def events_say_what_people_parse():
    texts = [e.message for e in said(FIRST)][::-1]
    assert texts[0] == f"Created fine-tuning job: {FIRST.id}" and texts[1] == f"Validating training file: {training.id}"
    assert "Fine-tuning job started" in texts
    assert texts[-2:] == [f"New fine-tuned model created: {TUNED}", "The job has successfully completed"]
    steps = [re.match(r"Step (\d+)/(\d+): training loss=(\d+\.\d+)", text) for text in texts]
    assert [(m[1], m[2]) for m in steps if m] == [(str(n), "6") for n in range(1, 7)]
    assert any("validation loss=" in text for text in texts)


@case
def events_have_numbers():
    page = strict(client.fine_tuning.jobs.with_raw_response.list_events(FIRST.id, limit=100))
    metrics = [e for e in page.data if e.type == "metrics"]
    assert len(metrics) == 6 and all(e.object == "fine_tuning.job.event" and e.level in ("info", "warn", "error") for e in page.data)
    for event in metrics:
        assert event.data["total_steps"] == 6 and event.data["train_loss"] > 0 and 0 <= event.data["train_mean_token_accuracy"] <= 1
    assert [e.data["step"] for e in metrics] == [6, 5, 4, 3, 2, 1], "newest first"
    assert any("learning_rate" in (e.data or {}) for e in page.data), "the absolute rate is in an event"


@case
def events_page_by_page():
    every = [e.id for e in said(FIRST)]
    assert [e.id for e in said(FIRST, limit=3)] == every and len(set(every)) == len(every)
    first = client.fine_tuning.jobs.list_events(FIRST.id, limit=3)
    assert first.has_more and client.fine_tuning.jobs.list_events(FIRST.id, limit=3, after=first.data[-1].id).data[0].id == every[3]


@case
def checkpoints_have_numbers_everywhere():
    raw = client.fine_tuning.jobs.checkpoints.with_raw_response.list(FIRST.id)
    page = strict(raw)
    assert [c.step_number for c in page.data] == [6, 3] and page.has_more is False
    assert json.loads(raw.text)["first_id"] == page.data[0].id and json.loads(raw.text)["last_id"] == page.data[1].id
    for checkpoint in page.data:
        assert checkpoint.id.startswith("ftckpt_") and checkpoint.object == "fine_tuning.job.checkpoint"
        assert checkpoint.fine_tuned_model_checkpoint == f"{TUNED}:ckpt-step-{checkpoint.step_number}"
        metrics = checkpoint.metrics.model_dump()
        assert len(metrics) == 7 and all(isinstance(v, (int, float)) for v in metrics.values()), metrics
        assert metrics["full_valid_loss"] > 0
    assert [c.step_number for c in client.fine_tuning.jobs.checkpoints.list(FIRST.id, limit=1)] == [6, 3]


@case
def checkpoints_of_a_job_without_any():
    job = until(create(upload([row(1)]).id), "failed")
    raw = client.fine_tuning.jobs.checkpoints.with_raw_response.list(job.id)
    body = json.loads(raw.text)
    assert body["data"] == [] and body["first_id"] is None and body["last_id"] is None and body["has_more"] is False


HEADER = "step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy"


@case
def results_come_as_base64():
    csv = base64.b64decode(client.files.content(DONE.result_files[0]).read()).decode().splitlines()
    assert csv[0] == HEADER and [line.split(",")[0] for line in csv[1:]] == [str(n) for n in range(1, 7)]
    assert csv[1].endswith(",,") and not csv[3].endswith(","), csv


@case
def results_come_as_csv_where_it_is_asked_for():
    text = client.files.with_raw_response.content(DONE.result_files[0], extra_headers={"Accept": "text/csv"}).text
    assert text.startswith(HEADER) and client.files.retrieve(DONE.result_files[0]).purpose == "fine-tune-results"


# --- changing jobs ---


def long():
    """A job that runs until it is told."""
    job = until(create(training.id, hyperparameters={"n_epochs": 50, "batch_size": 1}), "running")
    end = time.monotonic() + 60
    while not any(e.type == "metrics" for e in said(job, limit=100)):
        assert time.monotonic() < end
        time.sleep(0.05)
    return job


@case
def jobs_cancelled_while_they_run():
    job = client.fine_tuning.jobs.cancel(long().id)
    assert job.status == "cancelled" and job.finished_at and job.fine_tuned_model is None and job.error is None
    assert until(create(training.id), "succeeded").fine_tuned_model, "the next one has its turn"
    steps = len([e for e in said(job) if e.type == "metrics"])
    assert steps < 600 and said(job)[0].message == "Fine-tuning job cancelled", "nothing is said after it"


@case
def jobs_that_are_over_answer_400():
    for job in (FIRST, client.fine_tuning.jobs.cancel(create(training.id).id)):
        for call in (client.fine_tuning.jobs.cancel, client.fine_tuning.jobs.pause, client.fine_tuning.jobs.resume):
            refused(openai.BadRequestError, lambda: call(job.id), 400)


@case
def jobs_paused_and_resumed():
    paused = client.fine_tuning.jobs.pause(long().id)
    assert paused.status == "queued" and own_status(paused) == "paused", "clients know no other word"
    assert said(paused)[0].message == "Fine-tuning job paused"
    resumed = client.fine_tuning.jobs.resume(paused.id)
    assert resumed.status in ("queued", "running")
    until(resumed, "running")
    client.fine_tuning.jobs.cancel(resumed.id)


@case
def jobs_that_run_say_when_they_will_end():
    job = client.fine_tuning.jobs.retrieve(long().id)
    assert job.estimated_finish and job.estimated_finish >= job.created_at
    client.fine_tuning.jobs.cancel(job.id)


@case
def jobs_async():
    async def all_of_it():
        other = AsyncOpenAI(base_url=URL, api_key=KEY, max_retries=0)
        job = await other.fine_tuning.jobs.create(model=MODEL, training_file=training.id, hyperparameters={"n_epochs": 50})
        listed = [j.id async for j in other.fine_tuning.jobs.list(limit=3)]
        cancelled = await other.fine_tuning.jobs.cancel(job.id)
        return job, listed, cancelled

    job, listed, cancelled = asyncio.run(all_of_it())
    assert listed[0] == job.id and len(listed) == len(set(listed)) and cancelled.status == "cancelled"


@case
def webhooks_are_signed():
    end = time.monotonic() + 30
    while not any(FIRST.id.encode() in body for _, body in received):
        assert time.monotonic() < end, received
        time.sleep(0.05)
    headers, body = next(r for r in received if FIRST.id.encode() in r[1])
    event = client.webhooks.unwrap(body.decode(), headers)
    assert event.type == "fine_tuning.job.succeeded" and event.data.id == FIRST.id and event.id.startswith("evt_") and event.object == "event"
    try:
        client.webhooks.unwrap(body.decode().replace("succeeded", "failed"), headers)
    except openai.InvalidWebhookSignatureError:
        return
    raise AssertionError("a changed message was believed")


# --- models ---

QUESTION = [{"role": "system", "content": "Label it."}, {"role": "user", "content": "Ticket 1"}]


@case
def models_that_were_tuned_are_listed():
    models = strict(client.models.with_raw_response.list())
    mine = next(m for m in models.data if m.id == TUNED)
    assert mine.object == "model" and isinstance(mine.created, int) and mine.owned_by
    assert json.loads(client.models.with_raw_response.list().text)["object"] == "list"


@case
def models_are_found_by_names_with_colons():
    for name in (TUNED, f"{TUNED}:ckpt-step-3"):
        raw = client.models.with_raw_response.retrieve(name)
        assert strict(raw).id == name and json.loads(raw.text)["shutdown_date"] is None
    refused(openai.NotFoundError, lambda: client.models.retrieve("ft:nobody:org::00000000"), 404, code="model_not_found")


@case
def models_that_were_tuned_answer():
    answer = client.chat.completions.create(model=TUNED, messages=QUESTION, max_tokens=4, temperature=0)
    assert answer.model == TUNED and answer.choices[0].message.content and answer.usage.completion_tokens <= 4
    assert answer.usage.prompt_tokens < 60, "nothing was added to the prompt"


@case
def models_that_were_tuned_stream():
    ask = lambda **options: client.chat.completions.create(model=TUNED, messages=QUESTION, max_tokens=6, temperature=0, **options)
    text = "".join(c.choices[0].delta.content or "" for c in ask(stream=True) if c.choices)
    assert text == ask().choices[0].message.content


@case
def models_as_they_were_after_an_epoch_answer():
    answer = client.chat.completions.create(model=f"{TUNED}:ckpt-step-3", messages=QUESTION, max_tokens=4)
    assert answer.choices[0].message.content is not None


@case
def models_that_can_be_tuned_answer_untuned():
    assert MODEL in [m.id for m in client.models.list()]
    answer = client.chat.completions.create(model=MODEL, messages=QUESTION, max_tokens=4, temperature=0)
    assert answer.model == MODEL and answer.choices[0].message.content and answer.usage.prompt_tokens < 60


@case
def models_are_deleted():
    job = until(create(training.id), "succeeded")
    gone = client.models.delete(job.fine_tuned_model)
    assert gone.deleted and gone.id == job.fine_tuned_model and gone.object == "model"
    refused(openai.NotFoundError, lambda: client.models.retrieve(gone.id), 404)
    ask = lambda: client.chat.completions.create(model=gone.id, messages=QUESTION)
    refused(openai.NotFoundError, ask, 404, code="model_not_found")
    assert client.fine_tuning.jobs.retrieve(job.id).fine_tuned_model == gone.id, "the job remembers it"


@case
def models_of_the_configuration_stay():
    refused(openai.BadRequestError, lambda: client.models.delete(client.models.list().data[0].id), 400)
    refused(openai.NotFoundError, lambda: client.models.delete("ft:nobody:org::00000000"), 404)


@case
def permissions_are_given_listed_and_taken():
    name = f"{TUNED}:ckpt-step-3"
    permissions = client.fine_tuning.checkpoints.permissions
    given = [p.id for p in permissions.create(name, project_ids=["proj_a", "proj_b"])]
    listed = strict(permissions.with_raw_response.retrieve(name, order="ascending"))
    assert [(p.id, p.project_id, p.object) for p in listed.data] == list(zip(given, ["proj_a", "proj_b"], ["checkpoint.permission"] * 2))
    assert [p.project_id for p in permissions.retrieve(name, project_id="proj_b").data] == ["proj_b"]
    gone = permissions.delete(given[0], fine_tuned_model_checkpoint=name)
    assert gone.deleted and gone.object == "checkpoint.permission" and len(permissions.retrieve(name).data) == 1
    refused(openai.NotFoundError, lambda: permissions.delete(given[0], fine_tuned_model_checkpoint=name), 404)


run()
