"""The official openai package, unmodified: a streamed and a plain answer with equal citations."""

import sys

from openai import NotFoundError, OpenAI

client = OpenAI(base_url=sys.argv[1], api_key="unused")
model = client.models.list().data[0].id
QUESTIONS = ["How long do I have to return something?", "How long is the Swift kettle covered by the warranty?", "Which cards do you accept?"]


def annotations(found):
    """What an annotation says, whether the SDK made it a model or left it a dict."""
    return [a if isinstance(a, dict) else a.model_dump() for a in found or []]


cited = 0
for question in QUESTIONS:
    messages = [{"role": "user", "content": question}]
    plain = client.chat.completions.create(model=model, messages=messages, temperature=0)
    text, streamed, finish, usage = "", [], None, None
    stream = client.chat.completions.create(model=model, messages=messages, temperature=0, stream=True, stream_options={"include_usage": True})
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            streamed += annotations(getattr(choice.delta, "annotations", None))
            finish = choice.finish_reason or finish
    message = plain.choices[0].message
    assert text == message.content, (text, message.content)
    assert streamed == annotations(message.annotations), (streamed, message.annotations)
    assert finish == plain.choices[0].finish_reason
    assert usage.total_tokens == plain.usage.total_tokens
    for annotation in message.annotations:
        citation = annotation.url_citation
        assert annotation.type == "url_citation" and citation.title and citation.url
        assert 0 <= citation.start_index < citation.end_index <= len(message.content)
        cited += 1
    print(f"{question}\n  {message.content.strip()!r}\n  {[a.url_citation.title for a in message.annotations]}")
assert cited, "no answer had a citation"

vectors = client.embeddings.create(model=client.models.list().data[1].id, input=["a kettle", "a teapot"])
assert len(vectors.data) == 2 and len(vectors.data[0].embedding) == 384
try:
    client.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": "hi"}])
    raise SystemExit("an unknown model was accepted")
except NotFoundError as error:
    assert error.code == "model_not_found", error
print("ok")
