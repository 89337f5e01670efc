// The official openai package for node, unmodified, against the fine-tuning API and the trainer of this process: one line `ok NAME` for each case of docs/reference/conformance.md.
// node conformance_tuning.mjs PACKAGES BASE_URL BASE_MODEL

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, baseURL, model] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${packages}/`));
const OpenAI = require("openai");
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const jobs = client.fineTuning.jobs;
const all = async (items) => {
  const found = [];
  for await (const item of items) found.push(item);
  return found;
};
const refused = (call, kind, status, fields = {}) =>
  assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.equal(error.status, status);
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, name);
    return true;
  });
const row = (number) => ({ messages: [{ role: "user", content: `Ticket ${number}` }, { role: "assistant", content: ["refund", "shipping", "other"][number % 3] }] });
const content = Array.from({ length: 12 }, (_, number) => `${JSON.stringify(row(number))}\n`).join("");
const upload = (text = content, name = "rows.jsonl") => client.files.create({ purpose: "fine-tune", file: new File([text], name) });
const create = (training_file, options = {}) => jobs.create({ model, training_file, method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 1, batch_size: 4 } } }, ...options });
const until = async (id, ...statuses) => {
  for (let tries = 0; tries < 2400; tries++) {
    const job = await jobs.retrieve(id);
    if (statuses.includes(job.status)) return job;
    assert.ok(!["failed", "cancelled", "succeeded"].includes(job.status), JSON.stringify(job));
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`job ${id} did not become ${statuses}`);
};

const training = await upload();
const first = await create(training.id, { suffix: "labels", seed: 7, metadata: { team: "support" } });
const done = await until(first.id, "succeeded");
const tuned = done.fine_tuned_model;

const cases = {
  async files_for_training() {
    const file = await upload();
    assert.equal((await client.files.waitForProcessing(file.id)).status, "processed");
    assert.equal(await (await client.files.content(file.id)).text(), content);
    assert.ok((await client.files.delete(file.id)).deleted);
  },
  async files_for_training_must_be_jsonl() {
    await refused(() => upload(content, "rows.txt"), OpenAI.BadRequestError, 400, { param: "file" });
  },
  async files_pages_go_on() {
    const made = [];
    for (let n = 0; n < 3; n++) made.push((await upload()).id);
    const listed = (await all(await client.files.list({ purpose: "fine-tune", limit: 2 }))).map((file) => file.id);
    assert.deepEqual(listed.slice(0, 3), made.reverse());
    assert.equal(new Set(listed).size, listed.length);
  },
  async uploads_in_parts() {
    const begun = await client.uploads.create({ filename: "big.jsonl", purpose: "fine-tune", bytes: 6, mime_type: "text/jsonl" });
    const second = await client.uploads.parts.create(begun.id, { data: new File(["456"], "blob") });
    const one = await client.uploads.parts.create(begun.id, { data: new File(["123"], "blob") });
    const completed = await client.uploads.complete(begun.id, { part_ids: [one.id, second.id] });
    assert.equal(completed.status, "completed");
    assert.equal(await (await client.files.content(completed.file.id)).text(), "123456");
    await refused(() => client.uploads.cancel(begun.id), OpenAI.BadRequestError, 400);
  },
  async jobs_that_succeed_name_their_model() {
    assert.match(tuned, new RegExp(`^ft:${model}:[^:]+:labels:[A-Za-z0-9]{8}$`));
    assert.ok(done.finished_at && done.trained_tokens > 0 && done.error === null && done.result_files.length === 1);
    assert.equal(done.method.supervised.hyperparameters.n_epochs, 1);
  },
  async jobs_of_an_unmapped_model_are_refused() {
    await refused(() => create(training.id, { model: "gpt-4.1" }), OpenAI.BadRequestError, 400, { param: "model", code: "model_not_available" });
  },
  async jobs_of_too_few_rows_fail() {
    const job = await create((await upload(content.split("\n").slice(0, 3).join("\n"))).id);
    assert.equal((await until(job.id, "failed")).error.message, "Training file has 3 example(s), but must have at least 10 examples");
  },
  async jobs_listed_page_by_page() {
    const listed = (await all(await jobs.list({ limit: 1 }))).map((job) => job.id);
    assert.equal(listed.at(-1), first.id);
    assert.equal(new Set(listed).size, listed.length);
    assert.deepEqual((await all(await jobs.list({ metadata: { team: "support" } }))).map((job) => job.id), [first.id]);
  },
  async events_page_by_page() {
    const events = await all(await jobs.listEvents(first.id, { limit: 2 }));
    assert.equal(events[0].message, "The job has successfully completed");
    assert.equal(events.at(-1).message, `Created fine-tuning job: ${first.id}`);
    assert.deepEqual(events.filter((event) => event.type === "metrics").map((event) => event.data.step), [3, 2, 1]);
  },
  async checkpoints_have_numbers_everywhere() {
    const [checkpoint] = await all(await jobs.checkpoints.list(first.id));
    assert.equal(checkpoint.fine_tuned_model_checkpoint, `${tuned}:ckpt-step-3`);
    assert.ok(Object.values(checkpoint.metrics).every((value) => typeof value === "number"));
  },
  async jobs_cancelled_paused_and_resumed() {
    const { id } = await create(training.id, { method: { type: "supervised", supervised: { hyperparameters: { n_epochs: 50, batch_size: 1 } } } });
    await until(id, "running");
    assert.equal((await jobs.pause(id)).status, "queued");
    assert.ok(["queued", "running"].includes((await jobs.resume(id)).status));
    assert.equal((await jobs.cancel(id)).status, "cancelled");
    await refused(() => jobs.cancel(id), OpenAI.BadRequestError, 400);
  },
  async results_come_as_base64() {
    const csv = Buffer.from(await (await client.files.content(done.result_files[0])).text(), "base64").toString();
    assert.ok(csv.startsWith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy\n1,"), csv);
  },
  async models_that_were_tuned_answer() {
    const messages = [{ role: "user", content: "Ticket 1" }];
    const whole = await client.chat.completions.create({ model: tuned, messages, max_tokens: 4, temperature: 0 });
    const stream = await all(await client.chat.completions.create({ model: tuned, messages, max_tokens: 4, temperature: 0, stream: true }));
    assert.equal(stream.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), whole.choices[0].message.content);
  },
  async permissions_are_given_listed_and_taken() {
    const { permissions } = client.fineTuning.checkpoints;
    const [given] = await all(await permissions.create(`${tuned}:ckpt-step-3`, { project_ids: ["proj_a"] }));
    assert.equal(given.project_id, "proj_a");
    assert.ok((await permissions.delete(given.id, { fine_tuned_model_checkpoint: `${tuned}:ckpt-step-3` })).deleted);
  },
  async models_are_listed_retrieved_and_deleted() {
    assert.ok((await all(await client.models.list())).some((found) => found.id === tuned));
    assert.equal((await client.models.retrieve(tuned)).id, tuned);
    assert.ok((await client.models.delete(tuned)).deleted);
    await refused(() => client.models.retrieve(tuned), OpenAI.NotFoundError, 404, { code: "model_not_found" });
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log("ok", name);
  } catch (problem) {
    failed += 1;
    console.error("FAILED", name, problem);
  }
}
process.exit(failed ? 1 : 0);
