// The official openai package for node, unmodified, against the shop's server: one line `ok NAME` for each case of docs/reference/conformance.md.
// node conformance.mjs PACKAGES BASE_URL

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [packages, baseURL] = process.argv.slice(2);
const require = createRequire(pathToFileURL(`${packages}/`));
const OpenAI = require("openai");
const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const ASK = "How long can I send my grinder back?";
const tools = [{ type: "function", function: { name: "price", parameters: { type: "object", properties: { sku: { type: "string" } } } } }];
const user = (content = ASK) => [{ role: "user", content }];
const ask = (content = ASK, options = {}) => client.chat.completions.create({ model: "shop", messages: user(content), ...options });
const echo = async (options) => JSON.parse((await ask(`ECHO ${ASK}`, options)).choices[0].message.content);
const respond = (input = ASK, options = {}) => client.responses.create({ model: "shop", input, ...options });
const all = async (events) => {
  const found = [];
  for await (const event of events) found.push(event);
  return found;
};
const refused = async (call, kind, status, fields = {}) => {
  await assert.rejects(call, (error) => {
    assert.ok(error instanceof kind, `${error}`);
    assert.equal(error.status, status);
    assert.ok(error.requestID, "no request id");
    for (const [name, value] of Object.entries(fields)) assert.equal(error[name], value, name);
    return true;
  });
};
const upload = () => client.files.create({ purpose: "assistants", file: new File(["# Kettles\n\nA kettle can be sent back within 77 days.\n"], "kettles.md") });

const cases = {
  async chat_answers_with_a_citation() {
    const answer = await ask();
    const { url_citation: citation } = answer.choices[0].message.annotations[0];
    assert.equal(answer.choices[0].message.content.slice(citation.start_index, citation.end_index), "[1]");
    assert.equal(answer.usage.completion_tokens_details.reasoning_tokens, 3);
  },
  async chat_stream_equals_the_whole() {
    const chunks = await all(await ask(ASK, { stream: true, stream_options: { include_usage: true } }));
    const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
    assert.equal(text, (await ask()).choices[0].message.content);
    assert.equal(chunks.at(-1).usage.total_tokens, 49);
  },
  async chat_stream_helper() {
    const final = await client.chat.completions.stream({ model: "shop", messages: user() }).finalChatCompletion();
    assert.ok(final.choices[0].message.content.endsWith("[1]."));
  },
  async chat_stream_aborted() {
    const events = await ask(`SLOW ${ASK}`, { stream: true });
    let seen = 0;
    for await (const _ of events) if (++seen === 3) break;
    assert.equal(seen, 3);
  },
  async chat_n() {
    const answer = await ask(ASK, { n: 2 });
    assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1]);
  },
  async chat_sampling_is_passed_on() {
    const options = { temperature: 0.5, top_p: 0.25, seed: 7, presence_penalty: 1.5, stop: ["END"], logit_bias: { 5: -1 }, user: "ann", max_tokens: 50 };
    const sent = await echo(options);
    for (const [name, value] of Object.entries(options)) assert.deepEqual(sent[name], value, name);
  },
  async chat_logprobs() {
    assert.equal((await ask(ASK, { logprobs: true })).choices[0].logprobs.content[0].logprob, -0.25);
  },
  async chat_tool_calls() {
    const [choice] = (await ask(ASK, { tools })).choices;
    assert.equal(choice.finish_reason, "tool_calls");
    assert.deepEqual(choice.message.tool_calls.map((call) => call.function.arguments), ['{"sku":"G1"}', '{"sku":"G2"}']);
  },
  async chat_tool_calls_streamed() {
    const final = await client.chat.completions.stream({ model: "shop", messages: user(), tools }).finalMessage();
    assert.deepEqual(final.tool_calls.map((call) => call.function.arguments), ['{"sku":"G1"}', '{"sku":"G2"}']);
  },
  async chat_run_tools() {
    const price = { ...tools[0].function, function: () => "89", parse: JSON.parse };
    const runner = client.chat.completions.runTools({ model: "shop", messages: user(), tools: [{ type: "function", function: price }] });
    assert.equal(await runner.finalContent(), "It costs 89 euro.");
  },
  async chat_structured_output() {
    const response_format = { type: "json_schema", json_schema: { name: "window", schema: { type: "object" } } };
    assert.equal((await client.chat.completions.parse({ model: "shop", messages: user(), response_format })).choices[0].message.parsed.days, 45);
  },
  async chat_images() {
    const parts = [{ type: "text", text: ASK }, { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }];
    assert.ok((await ask(parts)).choices[0].message.content.includes("data:image/png;base64,AAAA"));
  },
  async chat_request_id() {
    const { request_id } = await ask().withResponse();
    assert.ok(request_id);
  },
  async error_unknown_model() {
    await refused(() => client.chat.completions.create({ model: "gpt-4o", messages: user() }), OpenAI.NotFoundError, 404, { code: "model_not_found" });
  },
  async error_wrong_parameter() {
    await refused(() => ask(ASK, { temperature: 3 }), OpenAI.BadRequestError, 400, { param: "temperature", type: "invalid_request_error" });
  },
  async error_rate_limit() {
    await refused(() => ask("FAIL:429"), OpenAI.RateLimitError, 429, { type: "rate_limit_error" });
  },
  async error_model_server_down() {
    await refused(() => ask("FAIL:500"), OpenAI.InternalServerError, 502, { code: "upstream_error" });
  },
  async error_in_the_middle_of_a_stream() {
    await assert.rejects(async () => all(await ask(`CUT ${ASK}`, { stream: true })), OpenAI.APIError);
  },
  async models_and_embeddings() {
    const models = await all(await client.models.list());
    assert.equal(models[0].id, "shop");
    const vectors = await client.embeddings.create({ model: models[1].id, input: ["a kettle"] });
    assert.equal(vectors.data[0].embedding.length, 384);
  },
  async files_and_stores() {
    const file = await upload();
    const store = await client.vectorStores.create({ name: "kettles" });
    const attached = await client.vectorStores.files.createAndPoll(store.id, { file_id: file.id });
    assert.equal(attached.status, "completed");
    const found = await all(client.vectorStores.search(store.id, { query: "kettle" }));
    assert.equal(found[0].file_id, file.id);
    assert.equal(await (await client.files.content(file.id)).text(), "# Kettles\n\nA kettle can be sent back within 77 days.\n");
    assert.ok((await client.vectorStores.delete(store.id)).deleted);
    assert.ok((await client.files.delete(file.id)).deleted);
  },
  async responses_file_search() {
    const response = await respond(ASK, { tools: [{ type: "file_search", vector_store_ids: ["documents"] }], include: ["file_search_call.results"] });
    assert.equal(response.output[0].type, "file_search_call");
    assert.ok(response.output[0].results.length > 0);
    assert.ok(response.output_text.endsWith("[1]."));
  },
  async responses_stream_helper() {
    const stream = client.responses.stream({ model: "shop", input: ASK });
    const kinds = (await all(stream)).map((event) => event.type);
    assert.equal(kinds[0], "response.created");
    assert.equal(kinds.at(-1), "response.completed");
    assert.ok((await stream.finalResponse()).output[0].content[0].text.endsWith("[1]."));
  },
  async responses_go_on_from_an_earlier_one() {
    const first = await respond("What is your name?");
    const sent = JSON.parse((await respond("HISTORY", { previous_response_id: first.id })).output_text);
    assert.deepEqual(sent.roles.slice(-3), ["user", "assistant", "user"]);
  },
  async responses_function_calls() {
    const first = await respond(ASK, { tools: [{ type: "function", name: "price", parameters: {}, strict: false }] });
    assert.deepEqual(first.output.map((item) => item.type), ["function_call", "function_call"]);
  },
};

let failed = 0;
for (const [name, run] of Object.entries(cases)) {
  try {
    await run();
    console.log("ok", name);
  } catch (error) {
    failed += 1;
    console.error("FAILED", name, error?.message ?? error);
  }
}
process.exit(failed ? 1 : 0);
