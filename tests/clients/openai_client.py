"""Talks to a live gateway with the real openai client: openai_client.py BASE_URL MODEL"""

import sys

import openai

base_url, model = sys.argv[1:]
client = openai.OpenAI(base_url=base_url, api_key="unused", max_retries=0)
question = [{"role": "user", "content": "What is 12 + 34?"}]

assert model in [entry.id for entry in client.models.list()]

answer = client.chat.completions.create(model=model, messages=question, temperature=0)
assert answer.choices[0].message.content == "46", answer
assert answer.choices[0].finish_reason == "stop", answer
assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens

stream = client.chat.completions.create(
    model=model, messages=question, temperature=0, stream=True, stream_options={"include_usage": True}
)
chunks = list(stream)
text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
assert text == "46", text
assert chunks[-1].usage.completion_tokens == answer.usage.completion_tokens

completion = client.completions.create(model=model, prompt=["abc", "xyz"], max_tokens=4, logprobs=2)
assert len(completion.choices) == 2 and len(completion.choices[0].logprobs.tokens) > 0, completion

for wrong, error in [
    ({"temperature": 9}, openai.BadRequestError),
    ({"extra_body": {"temprature": 1}}, openai.BadRequestError),
    ({"model": "nobody"}, openai.NotFoundError),
]:
    try:
        client.chat.completions.create(**{"model": model, "messages": question, **wrong})
    except error as raised:
        assert raised.body["message"], raised
    else:
        raise AssertionError(f"{wrong} was accepted")

print("all checks passed")
