"""Streams are read on, each event once: python -m unittest discover -s sdk/python/tests"""

import asyncio
import unittest
from itertools import product
from unittest.mock import patch

import httpx
from gateway import CLOSED, LOST, SILENT, STREAM, TEXTS, Gateway, cut, failing, stream, whole

import tokenway
from tokenway import streams

ASKED = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
KEY = "secret"


def text(chunk):
    return chunk.choices[0].delta.content


# Certificates take long to read.
HTTP = httpx.Client()
TLS = httpx.create_ssl_context()


def read(gateway, **request):
    with tokenway.Client(gateway.url, KEY, http_client=HTTP).chat_stream(**ASKED, **request) as chunks:
        return [text(chunk) for chunk in chunks]


def read_async(gateway):
    async def reading():
        async with httpx.AsyncClient(verify=TLS) as http:
            async with tokenway.AsyncClient(gateway.url, KEY, http_client=http).chat_stream(**ASKED) as chunks:
                return [text(chunk) async for chunk in chunks]

    return asyncio.run(reading())


def without_pauses(test):
    return patch.multiple(streams, READ_ON_AFTER_SECONDS=0.001, READ_ON_AFTER_SECONDS_MAX=0.001)(test)


@without_pauses
class Streams(unittest.TestCase):
    def setUp(self):
        self.gateway = Gateway()
        self.addCleanup(self.gateway.__exit__)

    def test_whatever_byte_is_the_last_of_a_connection_each_event_comes_once(self):
        for end, at in product((LOST, CLOSED), range(len(stream()))):
            with self.subTest(end=end, at=at):
                self.gateway.begin(cut(at, end))
                self.assertEqual(read(self.gateway), TEXTS)
                seen = sum(event.startswith(b"id") for event in stream()[:at].split(b"\n\n")[:-1])
                rest = ("GET", f"/v1/streams/{STREAM}", seen, f"Bearer {KEY}")
                self.assertEqual(self.gateway.requests[1:], [rest])

    def test_asyncio_reads_on_too(self):
        for at in range(0, len(stream()), 5):
            with self.subTest(at=at):
                self.gateway.begin(cut(at), 503)
                self.assertEqual(read_async(self.gateway), TEXTS)

    def test_every_connection_may_be_lost(self):
        # From the length of one event: shorter ones bring nothing.
        for at in range(250, 600, 50):
            for reading in (read, read_async):
                with self.subTest(at=at), Gateway(cut(at), *[503, cut(at)] * 4) as gateway:
                    self.assertEqual(reading(gateway), TEXTS)

    def test_a_gateway_that_is_away_is_asked_again(self):
        with Gateway(cut(100), 503, 502, 503) as gateway:
            self.assertEqual(read(gateway), TEXTS)
            self.assertEqual(len(gateway.requests), 5)

    def test_any_other_refusal_is_final(self):
        for status in (400, 401, 404, 500):
            with self.subTest(status=status), Gateway(cut(100), status) as gateway:
                with self.assertRaises(tokenway.APIError) as raised:
                    read(gateway)
                error = raised.exception
                self.assertEqual((error.status, error.code), (status, f"code_{status}"))
                self.assertEqual(len(gateway.requests), 2)

    def test_a_refused_request_is_not_sent_again(self):
        for status in (429, 503):
            with self.subTest(status=status), Gateway(status) as gateway:
                with self.assertRaises(tokenway.APIError) as raised:
                    read(gateway)
                self.assertEqual((raised.exception.status, raised.exception.retry_after), (status, 7.0))
                self.assertEqual(len(gateway.requests), 1)

    def test_an_error_event_is_the_end(self):
        for replies in ([failing], [cut(100), failing]):
            with Gateway(*replies) as gateway:
                with self.assertRaises(tokenway.APIError) as raised:
                    read(gateway)
                self.assertEqual((raised.exception.status, raised.exception.code), (None, "lost"))
                self.assertEqual(len(gateway.requests), len(replies))

    def test_without_a_stream_id_a_lost_connection_is_raised(self):
        for end in (LOST, CLOSED):
            with Gateway(cut(100, end), id=None) as gateway:
                with self.assertRaises(tokenway.APIConnectionError) as raised:
                    read(gateway)
                self.assertIsNone(raised.exception.stream_id)
                self.assertEqual(len(gateway.requests), 1)

    def test_a_silent_connection_is_a_lost_one(self):
        with patch.object(streams, "SILENCE_SECONDS", 0.05):
            with Gateway(cut(400, SILENT)) as gateway:
                self.assertEqual(read(gateway), TEXTS)
            with Gateway(cut(400, SILENT)) as gateway:
                self.assertEqual(read_async(gateway), TEXTS)

    def test_when_nobody_answers_in_time_the_place_in_the_stream_is_told(self):
        with patch.object(streams, "READ_ON_FOR_SECONDS", 0.05), Gateway(cut(500), *[503] * 1000) as gateway:
            with self.assertRaises(tokenway.APIConnectionError) as raised:
                read(gateway)
        self.assertEqual((raised.exception.stream_id, raised.exception.last_event_id), (STREAM, 2))

    def test_a_stream_that_was_left_is_taken_up_elsewhere(self):
        with Gateway() as gateway, tokenway.Client(gateway.url, KEY) as client:
            with client.chat_stream(**ASKED) as chunks:
                self.assertEqual((chunks.id, chunks.last_event_id), (None, 0))
                first = text(next(chunks))
                place = chunks.id, chunks.last_event_id
            self.assertEqual(list(chunks), [])
            self.assertEqual(place, (STREAM, 1))
            gateway.replies = [503, cut(200), whole]
            rest = client.read_stream(*place)
            self.assertEqual([first, *map(text, rest)], TEXTS)
            self.assertEqual(list(client.read_stream(rest.id, rest.last_event_id)), [])

    def test_a_wrong_field_is_not_sent(self):
        with Gateway() as gateway:
            parts = [{"type": "text", "txt": "hi"}]
            for wrong in ({"temprature": 1}, {"stream": True}, {"stream_options": {"usage": True}}):
                with self.assertRaises(TypeError):
                    read(gateway, **wrong)
            with self.assertRaises(TypeError), tokenway.Client(gateway.url) as client:
                client.chat(model="m", messages=[{"role": "user", "content": parts}])
            self.assertEqual(gateway.requests, [])


if __name__ == "__main__":
    unittest.main()
