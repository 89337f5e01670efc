"""The official openai package, unmodified, against the shop's server: one line `ok NAME` for each case of docs/reference/conformance.md."""

import asyncio
import io
import json
import sys

import openai
from cases import DIRECT, KEY, case, run
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

client = OpenAI(base_url=sys.argv[1], api_key=KEY, max_retries=0)
ASK = "How long can I send my grinder back?"
TOOLS = [{"type": "function", "function": {"name": "price", "parameters": {"type": "object", "properties": {"sku": {"type": "string"}}}}}]


def user(text=ASK, **rest):
    return [{"role": "user", "content": text, **rest}]


def ask(text=ASK, **options):
    return client.chat.completions.create(model="shop", messages=user(text), **options)


def echo(**options):
    """What the model server was sent."""
    return json.loads(ask("ECHO " + ASK, **options).choices[0].message.content)


def plain(annotations):
    return [a if isinstance(a, dict) else a.model_dump() for a in annotations or []]


def stream(text=ASK, **options):
    return list(client.chat.completions.create(model="shop", messages=user(text), stream=True, **options))


def refused(error, call, status, **fields):
    try:
        call()
    except error as found:
        assert found.status_code == status, found
        assert found.request_id or not DIRECT, found.response.headers
        for name, value in fields.items():
            assert getattr(found, name) == value, f"`{name}` is {getattr(found, name)!r}, not {value!r}: {found}"
        return found
    raise AssertionError("it was accepted")


# --- chat completions ---


@case
def chat_answers_with_a_citation():
    answer = ask()
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.model == "shop"
    choice = answer.choices[0]
    assert choice.message.role == "assistant" and choice.finish_reason == "stop" and choice.message.refusal is None
    citation = choice.message.annotations[0].url_citation
    assert choice.message.content[citation.start_index : citation.end_index] == "[1]" and citation.title and citation.url


@case
def chat_usage_has_details():
    usage = ask().usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (40, 9, 49)
    assert usage.prompt_tokens_details.cached_tokens == 8 and usage.completion_tokens_details.reasoning_tokens == 3


@case
def chat_system_fingerprint():
    assert ask().system_fingerprint == "fp_mock"


@case
def chat_stream_equals_the_whole():
    chunks = stream()
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    annotations = [a for c in chunks if c.choices for a in plain(getattr(c.choices[0].delta, "annotations", None))]
    whole = ask().choices[0].message
    assert text == whole.content and annotations == plain(whole.annotations)
    assert chunks[0].choices[0].delta.role == "assistant" and len({c.id for c in chunks}) == 1


@case
def chat_stream_without_usage():
    assert all(c.usage is None for c in stream())


@case
def chat_stream_include_usage():
    last = stream(stream_options={"include_usage": True})[-1]
    assert last.choices == [] and last.usage.total_tokens == 49


@case
def chat_stream_helper():
    with client.chat.completions.stream(model="shop", messages=user()) as events:
        kinds = {event.type for event in events}
        assert {"chunk", "content.delta", "content.done"} <= kinds, kinds
        assert events.get_final_completion().choices[0].message.content.endswith("[1].")


@case
def chat_stream_closed_early():
    events = client.chat.completions.create(model="shop", messages=user("SLOW " + ASK), stream=True)
    for _ in range(3):
        next(events)
    events.close()


@case
def chat_async():
    async def both():
        other = AsyncOpenAI(base_url=sys.argv[1], api_key=KEY, max_retries=0)
        answers = await asyncio.gather(*[other.chat.completions.create(model="shop", messages=user()) for _ in range(4)])
        pieces = [c async for c in await other.chat.completions.create(model="shop", messages=user(), stream=True)]
        return answers, pieces

    answers, pieces = asyncio.run(both())
    assert len({a.choices[0].message.content for a in answers}) == 1 and len(pieces) > 3


@case
def chat_n():
    answer = ask(n=3, seed=7)
    assert [c.index for c in answer.choices] == [0, 1, 2] and all(c.message.annotations for c in answer.choices)
    assert answer.usage.completion_tokens == 27


@case
def chat_n_streamed():
    chunks = stream(n=2, stream_options={"include_usage": True})
    finished = [c.choices[0].index for c in chunks if c.choices and c.choices[0].finish_reason]
    assert sorted(finished) == [0, 1] and chunks[-1].usage.completion_tokens == 18
    texts = ["".join(c.choices[0].delta.content or "" for c in chunks if c.choices and c.choices[0].index == i) for i in (0, 1)]
    assert texts[0] == texts[1] and texts[0]


@case
def chat_sampling_is_passed_on():
    options = {"temperature": 0.5, "top_p": 0.25, "seed": -3, "presence_penalty": 1.5, "frequency_penalty": -1.5, "stop": ["END"]}
    sent = echo(**options)
    assert {name: sent[name] for name in options} == options, sent


@case
def chat_max_tokens_keeps_its_name():
    assert echo(max_tokens=50).get("max_tokens") == 50 and "max_completion_tokens" not in echo(max_tokens=50)


@case
def chat_max_completion_tokens_keeps_its_name():
    sent = echo(max_completion_tokens=50)
    assert sent["max_completion_tokens"] == 50 and "max_tokens" not in sent


@case
def chat_other_parameters_are_passed_on():
    options = {
        "logit_bias": {"50256": -100},
        "user": "ann",
        "metadata": {"order": "7"},
        "reasoning_effort": "low",
        "service_tier": "flex",
        "store": True,
        "parallel_tool_calls": False,
        "prediction": {"type": "content", "content": "x"},
        "verbosity": "low",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
    }
    sent = echo(**options)
    assert {name: sent.get(name) for name in options} == options, sent


@case
def chat_unknown_parameters_are_passed_on():
    assert echo(extra_body={"top_k": 40, "tomorrow": {"a": [1]}})["tomorrow"] == {"a": [1]}


@case
def chat_stop_as_one_string():
    assert echo(stop="END")["stop"] == ["END"]


@case
def chat_logprobs():
    answer = ask(logprobs=True, top_logprobs=2)
    assert answer.choices[0].logprobs.content[0].token == "Yes" and answer.choices[0].logprobs.content[0].logprob == -0.25


@case
def chat_logprobs_streamed():
    tokens = [t.token for c in stream(logprobs=True) if c.choices and c.choices[0].logprobs for t in c.choices[0].logprobs.content]
    assert tokens == ["Yes"]


@case
def chat_tool_calls():
    choice = ask(tools=TOOLS).choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    calls = [(c.id, c.type, c.function.name, c.function.arguments) for c in choice.message.tool_calls]
    assert calls == [("call_1", "function", "price", '{"sku":"G1"}'), ("call_2", "function", "price", '{"sku":"G2"}')]


@case
def chat_tool_calls_streamed():
    with client.chat.completions.stream(model="shop", messages=user(), tools=TOOLS) as events:
        for _ in events:
            pass
        calls = events.get_final_completion().choices[0].message.tool_calls
    assert [c.function.arguments for c in calls] == ['{"sku":"G1"}', '{"sku":"G2"}']


@case
def chat_tool_answers_are_sent_back():
    first = ask(tools=TOOLS).choices[0].message
    messages = user() + [first.model_dump(exclude_none=True)]
    messages += [{"role": "tool", "tool_call_id": call.id, "content": "89"} for call in first.tool_calls]
    answer = client.chat.completions.create(model="shop", messages=messages, tools=TOOLS)
    assert answer.choices[0].message.content == "It costs 89 euro."


@case
def chat_tool_calls_in_the_history():
    call = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "price", "arguments": "{}"}}]}
    messages = user("What is the price?") + [call, {"role": "tool", "tool_call_id": "c", "content": "89"}, {"role": "assistant", "content": "89."}] + user("HISTORY")
    sent = json.loads(client.chat.completions.create(model="shop", messages=messages).choices[0].message.content)
    assert sent["roles"][-5:] == ["user", "assistant", "tool", "assistant", "user"], sent["roles"]
    assert sent["messages"][-4]["tool_calls"][0]["id"] == "c" and sent["messages"][-3]["tool_call_id"] == "c"


@case
def chat_tool_choice_is_passed_on():
    choice = {"type": "function", "function": {"name": "price"}}
    sent = echo(tools=TOOLS, tool_choice=choice)
    assert sent["tools"] == TOOLS and sent["tool_choice"] == choice


@case
def chat_structured_output():
    class Window(BaseModel):
        days: int
        sure: bool

    parsed = client.chat.completions.parse(model="shop", messages=user(), response_format=Window).choices[0].message.parsed
    assert parsed == Window(days=45, sure=True)


@case
def chat_json_mode_is_passed_on():
    assert echo(response_format={"type": "json_object"})["response_format"] == {"type": "json_object"}


@case
def chat_images():
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}}
    answer = client.chat.completions.create(model="shop", messages=[{"role": "user", "content": [{"type": "text", "text": ASK}, image]}])
    assert "data:image/png;base64,AAAA" in answer.choices[0].message.content
    assert "(true)" in answer.choices[0].message.content, "the text part holds the sources"


@case
def chat_text_parts():
    parts = [{"type": "text", "text": "How long can I"}, {"type": "text", "text": "send my grinder back?"}]
    assert client.chat.completions.create(model="shop", messages=[{"role": "user", "content": parts}]).choices[0].message.annotations


@case
def chat_names_of_people_stay():
    sent = json.loads(client.chat.completions.create(model="shop", messages=user("HISTORY", name="ann")).choices[0].message.content)
    assert sent["messages"][-1]["name"] == "ann"


@case
def chat_developer_messages():
    messages = [{"role": "developer", "content": "Be kind."}] + user("HISTORY")
    sent = json.loads(client.chat.completions.create(model="shop", messages=messages).choices[0].message.content)
    assert sent["messages"][0]["role"] == "system" and "Be kind." in sent["messages"][0]["content"]


@case
def chat_refusal():
    message = ask("REFUSE " + ASK).choices[0].message
    assert message.refusal == "I cannot do that." and message.content is None


@case
def chat_reasoning_content():
    message = ask("THINK " + ASK).choices[0].message
    assert message.content == "Yes." and message.model_extra["reasoning_content"] == "Let me see."


@case
def chat_finish_reason_length():
    assert ask("SHORT " + ASK).choices[0].finish_reason == "length"


@case
def chat_raw_response_has_a_request_id():
    raw = client.chat.completions.with_raw_response.create(model="shop", messages=user(), extra_headers={"x-request-id": "mine"})
    assert raw.headers["x-request-id"] == "mine" and raw.parse()._request_id == "mine"


# --- errors ---


@case
def error_unknown_model():
    refused(openai.NotFoundError, lambda: client.chat.completions.create(model="gpt-4o", messages=user()), 404, code="model_not_found")


@case
def error_has_a_request_id():
    found = refused(openai.BadRequestError, lambda: ask(temperature=3), 400)
    assert found.request_id and found.request_id == found.response.headers["x-request-id"]


@case
def error_wrong_parameter():
    refused(openai.BadRequestError, lambda: ask(temperature=3), 400, param="temperature", type="invalid_request_error")


@case
def error_no_messages():
    refused(openai.BadRequestError, lambda: client.chat.completions.create(model="shop", messages=[]), 400, param="messages")


@case
def error_too_long():
    refused(openai.BadRequestError, lambda: ask("word " * 20000), 400, code="context_length_exceeded")


@case
def error_of_the_model_server_comes_through():
    found = refused(openai.BadRequestError, lambda: ask("FAIL:400"), 400, param="messages", code="mock_code")
    assert "the mock says no" in found.message


@case
def error_rate_limit():
    found = refused(openai.RateLimitError, lambda: ask("FAIL:429"), 429, type="rate_limit_error")
    assert found.response.headers["retry-after"]


@case
def error_model_server_down():
    refused(openai.InternalServerError, lambda: ask("FAIL:500"), 502, code="upstream_error")


@case
def error_key_of_ours_refused_by_the_model_server():
    refused(openai.InternalServerError, lambda: ask("FAIL:401"), 502)


@case
def error_in_the_middle_of_a_stream():
    try:
        stream("CUT " + ASK)
    except openai.APIError as found:
        assert "ended before the answer did" in found.message
    else:
        raise AssertionError("half an answer was taken for a whole one")


# --- models and embeddings ---


@case
def models_list_and_retrieve():
    names = [model.id for model in client.models.list()]
    assert names[0] == "shop" and client.models.retrieve("shop").object == "model"
    refused(openai.NotFoundError, lambda: client.models.retrieve("nobody"), 404, code="model_not_found")


@case
def embeddings_float_and_base64():
    model = client.models.list().data[1].id
    one = client.embeddings.create(model=model, input="a kettle").data[0].embedding
    other = client.embeddings.create(model=model, input=["a kettle"], encoding_format="float").data[0].embedding
    assert len(one) == 384 and max(abs(a - b) for a, b in zip(one, other)) < 1e-6


# --- files and vector stores ---


def upload(name="returns of kettles.md", text="# Kettles\n\nA kettle can be sent back within 77 days. The kettle's label is free.\n"):
    return client.files.create(file=(name, io.BytesIO(text.encode())), purpose="assistants")


@case
def files_upload_list_retrieve_content_delete():
    file = upload()
    assert file.object == "file" and file.status == "processed" and file.filename == "returns of kettles.md"
    assert client.files.retrieve(file.id).bytes == file.bytes and file.id in [f.id for f in client.files.list()]
    assert b"77 days" in client.files.content(file.id).read()
    assert client.files.delete(file.id).deleted
    refused(openai.NotFoundError, lambda: client.files.retrieve(file.id), 404)


@case
def files_names_are_not_paths():
    file = upload("../../etc/passwd.md")
    assert file.filename == "passwd.md"
    client.files.delete(file.id)


@case
def files_purpose_and_quota():
    refused(openai.BadRequestError, lambda: client.files.create(file=("a.md", b"x"), purpose="vision"), 400, param="purpose")
    refused(openai.BadRequestError, lambda: upload(text="x" * 1_100_000), 400, param="file")
    refused(openai.BadRequestError, lambda: upload(text=""), 400, param="file")


@case
def files_pages():
    files = [upload(f"{n}.md") for n in range(3)]
    first = client.files.list(limit=2, order="asc")
    assert first.has_more and [f.id for f in client.files.list(limit=2, order="asc")] == [f.id for f in files]
    [client.files.delete(f.id) for f in files]


@case
def stores_create_retrieve_modify_list_delete():
    store = client.vector_stores.create(name="kettles", metadata={"a": "b"}, extra_body={"file_ids": None})
    assert store.object == "vector_store" and store.status == "completed" and store.file_counts.total == 0
    assert client.vector_stores.update(store.id, name="teapots").name == "teapots"
    assert client.vector_stores.retrieve(store.id).metadata == {"a": "b"}
    assert store.id in [s.id for s in client.vector_stores.list()]
    assert client.vector_stores.delete(store.id).deleted
    refused(openai.NotFoundError, lambda: client.vector_stores.retrieve(store.id), 404)


@case
def stores_own_collection():
    own = client.vector_stores.list().data[0]
    assert own.id == "documents" and own.file_counts.completed == 5
    assert client.vector_stores.search("documents", query="opening hours").data[0].filename == "hours.txt"
    refused(openai.ConflictError, lambda: client.vector_stores.delete("documents"), 409)


@case
def stores_files_and_search():
    store, file = client.vector_stores.create(name="kettles"), upload()
    assert not client.vector_stores.search(store.id, query="kettle").data, "nothing is in it"
    attached = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id, attributes={"year": 2026})
    assert attached.status == "completed" and attached.attributes == {"year": 2026} and attached.usage_bytes == file.bytes
    assert [f.id for f in client.vector_stores.files.list(store.id, filter="completed")] == [file.id]
    assert client.vector_stores.retrieve(store.id).file_counts.completed == 1
    hit = client.vector_stores.search(store.id, query="How long can a kettle be sent back?", max_num_results=1).data[0]
    assert hit.file_id == file.id and hit.filename == "returns of kettles.md" and "77 days" in hit.content[0].text and hit.score > 0
    assert hit.attributes == {"year": 2026}
    assert client.vector_stores.files.delete(file.id, vector_store_id=store.id).deleted
    assert not client.vector_stores.search(store.id, query="kettle").data
    client.vector_stores.delete(store.id)
    client.files.delete(file.id)


@case
def stores_made_with_files_and_deleted_files_leave_them():
    file = upload()
    store = client.vector_stores.create(name="k", file_ids=[file.id])
    client.vector_stores.files.poll(file.id, vector_store_id=store.id)
    assert client.vector_stores.search(store.id, query="kettle").data
    client.files.delete(file.id)
    assert not client.vector_stores.search(store.id, query="kettle").data
    client.vector_stores.delete(store.id)


@case
def stores_say_which_file_cannot_be_read():
    file, store = upload("picture.xyz", "not a format"), client.vector_stores.create()
    failed = client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    assert failed.status == "failed" and failed.last_error.code in ("unsupported_file", "invalid_file") and failed.last_error.message
    client.vector_stores.delete(store.id)
    client.files.delete(file.id)


# --- responses ---


def respond(text=ASK, **options):
    return client.responses.create(model="shop", input=text, **options)


@case
def responses_answer_with_a_url_citation():
    response = respond()
    assert response.object == "response" and response.status == "completed" and response.output_text.endswith("[1].")
    citation = response.output[0].content[0].annotations[0]
    assert citation.type == "url_citation" and response.output_text[citation.start_index : citation.end_index] == "[1]"
    assert response.usage.input_tokens == 40 and response.usage.input_tokens_details.cached_tokens == 8 and response.usage.total_tokens == 49


@case
def responses_file_search():
    file, store = upload(), client.vector_stores.create()
    client.vector_stores.files.create_and_poll(file.id, vector_store_id=store.id)
    search = {"type": "file_search", "vector_store_ids": [store.id], "max_num_results": 3}
    response = respond("How long can a kettle be sent back?", tools=[search], include=["file_search_call.results"])
    call, message = response.output
    assert call.type == "file_search_call" and call.status == "completed" and call.queries == ["How long can a kettle be sent back?"]
    assert call.results[0].file_id == file.id and "77 days" in call.results[0].text
    citation = message.content[0].annotations[0]
    assert citation.type == "file_citation" and citation.file_id == file.id and citation.filename == file.filename
    assert respond("kettle", tools=[search]).output[0].results is None
    client.vector_stores.delete(store.id)
    client.files.delete(file.id)


@case
def responses_streamed_events_in_order():
    search = {"type": "file_search", "vector_store_ids": ["documents"]}
    events = list(respond(tools=[search], stream=True))
    kinds = []
    for event in events:
        if not kinds or kinds[-1] != event.type:
            kinds.append(event.type)
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.file_search_call.completed",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ], kinds
    assert [event.sequence_number for event in events] == list(range(len(events)))
    whole, text = events[-1].response, "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert whole.output_text == text == respond(tools=[search]).output_text
    assert [a.model_dump() for a in whole.output[1].content[0].annotations] == [a.model_dump() for a in respond(tools=[search]).output[1].content[0].annotations]


@case
def responses_stream_helper():
    with client.responses.stream(model="shop", input=ASK) as events:
        for _ in events:
            pass
        assert events.get_final_response().output_text.endswith("[1].")


@case
def responses_instructions():
    sent = json.loads(respond("HISTORY", instructions="Be brief.").output_text)
    assert "Be brief." in sent["messages"][0]["content"]


@case
def responses_go_on_from_an_earlier_one():
    first = respond("What is your name?")
    sent = json.loads(respond("HISTORY", previous_response_id=first.id).output_text)
    assert sent["roles"][-3:] == ["user", "assistant", "user"] and sent["messages"][-2]["content"] == first.output_text


@case
def responses_retrieve_and_delete():
    first = respond()
    assert client.responses.retrieve(first.id).output_text == first.output_text
    client.responses.delete(first.id)
    refused(openai.NotFoundError, lambda: client.responses.retrieve(first.id), 404)
    refused(openai.NotFoundError, lambda: respond(previous_response_id=first.id), 404, param="previous_response_id")


@case
def responses_that_are_not_stored():
    refused(openai.NotFoundError, lambda: client.responses.retrieve(respond(store=False).id), 404)


@case
def responses_function_calls():
    tools = [{"type": "function", "name": "price", "parameters": TOOLS[0]["function"]["parameters"], "strict": False}]
    first = respond(tools=tools)
    assert [(c.type, c.call_id, c.arguments) for c in first.output] == [("function_call", "call_1", '{"sku":"G1"}'), ("function_call", "call_2", '{"sku":"G2"}')]
    answers = [{"type": "function_call_output", "call_id": c.call_id, "output": "89"} for c in first.output]
    assert respond(answers, previous_response_id=first.id, tools=tools).output_text == "It costs 89 euro."
    assert respond([{"role": "user", "content": ASK}, *first.output, *answers], tools=tools).output_text == "It costs 89 euro."


@case
def responses_function_calls_streamed():
    tools = [{"type": "function", "name": "price", "parameters": {}, "strict": False}]
    events = list(respond(tools=tools, stream=True))
    done = [e.arguments for e in events if e.type == "response.function_call_arguments.done"]
    assert done == ['{"sku":"G1"}', '{"sku":"G2"}'] and len(events[-1].response.output) == 2


@case
def responses_structured_output():
    class Window(BaseModel):
        days: int
        sure: bool

    assert client.responses.parse(model="shop", input=ASK, text_format=Window).output_parsed == Window(days=45, sure=True)


@case
def responses_images():
    parts = [{"type": "input_text", "text": ASK}, {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}]
    assert "data:image/png;base64,AAAA" in respond([{"role": "user", "content": parts}]).output_text


@case
def responses_incomplete():
    response = respond("SHORT " + ASK)
    assert response.status == "incomplete" and response.incomplete_details.reason == "max_output_tokens"


@case
def responses_parameters_are_passed_on():
    sent = json.loads(respond("ECHO", temperature=0.5, top_p=0.5, max_output_tokens=60, reasoning={"effort": "low"}, user="ann").output_text)
    assert (sent["temperature"], sent["top_p"], sent["max_completion_tokens"], sent["reasoning_effort"], sent["user"]) == (0.5, 0.5, 60, "low", "ann")


@case
def responses_refuse_by_name():
    refused(openai.BadRequestError, lambda: respond(background=True), 400, param="background", code="unsupported_parameter")
    refused(openai.BadRequestError, lambda: respond(tools=[{"type": "web_search"}]), 400, param="tools")
    refused(openai.NotFoundError, lambda: respond(tools=[{"type": "file_search", "vector_store_ids": ["vs_none"]}]), 404)
    refused(openai.BadRequestError, lambda: respond("FAIL:400"), 400, param="input")


@case
def responses_fail_in_the_middle_of_a_stream():
    last = list(respond("CUT " + ASK, stream=True))[-1]
    assert last.type == "response.failed" and last.response.error.code == "server_error"


run()
