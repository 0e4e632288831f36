"""Talks to live gateways with the Python SDK: sdk_python.py URL [OTHER_URL]

A stream that was begun at the first is taken up at the other. As `sdk_python.py URL --lose-gateway` it prints "streaming"
when an answer is on its way: then whoever runs this kills the gateway and starts another. It prints the whole answer as
JSON at its end.
"""

import asyncio
import json
import sys

import tokenway

STORY = {"temperature": 1.5, "seed": 7, "max_tokens": 400}


def asking(model, prompt, **more):
    return {"model": model, "messages": [{"role": "user", "content": prompt}], **more}


def text(chunks):
    return "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)


def lose_gateway(client, model):
    read = ""
    for chunk in client.chat_stream(**asking(model, "Tell me a story about a fox.", **STORY)):
        begun = len(read) > 10
        read += text([chunk])
        if not begun and len(read) > 10:
            print("streaming", flush=True)
    print(json.dumps(read))


def check(client, other, model):
    question = asking(model, "What is 12 + 34?", temperature=0)
    answer = client.chat(**question)
    assert answer.choices[0].message.content == "46", answer
    assert answer.choices[0].finish_reason == "stop", answer

    with client.chat_stream(**question, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    assert text(chunks) == "46", chunks
    assert chunks[-1].usage == answer.usage, chunks

    completion = client.completion(model=model, prompt=["abc", "xyz"], max_tokens=4, logprobs=2, temperature=0)
    assert len(completion.choices) == 2 and len(completion.choices[0].logprobs.tokens) == 4, completion
    stream = client.completion_stream(model=model, prompt="abc", max_tokens=4, temperature=0)
    assert "".join(chunk.choices[0].text for chunk in stream) == completion.choices[0].text

    with client.chat_stream(**asking(model, "Tell me a story about a fox.", **STORY)) as stream:
        begun = [next(stream), next(stream)]
    rest = list(other.read_stream(stream.id, stream.last_event_id))
    assert text(begun + rest) == text(other.read_stream(stream.id)), stream.id

    for wrong, (status, param, code) in [
        ({"temperature": 9}, (400, "temperature", None)),
        ({"model": "nobody"}, (404, "model", "model_not_found")),
    ]:
        for method in (client.chat, lambda **request: list(client.chat_stream(**request))):
            try:
                method(**{**question, **wrong})
            except tokenway.APIError as error:
                assert (error.status, error.param, error.code) == (status, param, code) and error.message, error
            else:
                raise AssertionError(f"{wrong} was accepted")
    try:
        client.chat(**question, temprature=1)
    except TypeError as error:
        assert "temprature" in str(error), error
    else:
        raise AssertionError("a field that does not exist was accepted")


async def check_async(url, model):
    async with tokenway.AsyncClient(url) as client:
        assert model in [entry.id for entry in await client.models()]
        question = asking(model, "What is 12 + 34?", temperature=0)
        assert (await client.chat(**question)).choices[0].message.content == "46"
        async with client.chat_stream(**question) as stream:
            assert text([chunk async for chunk in stream]) == "46"


def main(url, other=None):
    with tokenway.Client(url) as client:
        model = client.models()[0].id
        if other == "--lose-gateway":
            return lose_gateway(client, model)
        with tokenway.Client(other or url) as other:
            check(client, other, model)
    asyncio.run(check_async(url, model))
    print("all checks passed")


main(*sys.argv[1:])
