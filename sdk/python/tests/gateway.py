"""A gateway that says what a test wants: the same stream for every request, cut off where the test says."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STREAM = "0123456789abcdef0123456789abcdef"


def chunk(text):
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    head = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
        "system_fingerprint": "f",
    }
    return json.dumps({**head, "choices": [choice]}, ensure_ascii=False)


TEXTS = ["Ein ", "Füchs\n\n", "", "chen 🦊"]
EVENTS = [chunk(text) for text in TEXTS] + ["[DONE]"]


def stream(after=0):
    """The bytes of the events after the first `after`, with a comment among them."""
    events = [f"id: {place}\ndata: {data}\n\n" for place, data in enumerate(EVENTS, 1)]
    return ":\n\n".join(["", *events[after:]]).encode()


class Gateway(ThreadingHTTPServer):
    """Answers each request with the next of `replies`: a status, or a function of the last event id that gives bytes
    and whether they are all. Without more replies, it sends everything."""

    daemon_threads = True

    def __init__(self, *replies, id=STREAM):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.id = id
        self.begin(*replies)
        self.left = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    def begin(self, *replies):
        self.replies = list(replies)
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __exit__(self, *error):
        self.left.set()
        self.shutdown()
        super().__exit__(*error)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        last = int(self.headers.get("last-event-id", 0))
        self.server.requests.append((self.command, self.path, last, self.headers.get("authorization")))
        reply = self.server.replies.pop(0) if self.server.replies else whole
        if isinstance(reply, int):
            self.refuse(reply)
        else:
            self.send(*reply(last))

    do_GET = do_POST = answer

    def refuse(self, status):
        error = {"message": "no", "type": "t", "param": None, "code": f"code_{status}"}
        body = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.send_header("retry-after", "7")
        self.end_headers()
        self.wfile.write(body)

    def send(self, body, end):
        self.close_connection = True
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        if self.server.id:
            self.send_header("x-stream-id", self.server.id)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        if body:
            self.wfile.write(f"{len(body):x}\r\n".encode() + body + b"\r\n")
        if end == SILENT:
            self.server.left.wait()
        if end == CLOSED:
            self.wfile.write(b"0\r\n\r\n")

    def log_message(self, *_):
        pass


# How a response ends: as HTTP wants it, by a lost connection, or not.
CLOSED, LOST, SILENT = range(3)


def whole(last):
    return stream(last), CLOSED


def cut(at, end=LOST):
    """The first `at` bytes of what is asked for."""
    return lambda last: (stream(last)[:at], end)


def failing(last):
    """One more event, then the error that ends the stream."""
    error = {"message": "gone", "type": "server_error", "param": None, "code": "lost"}
    return stream(last)[
        : stream(last).index(b"\n\n:") + 2
    ] + f"data: {json.dumps({'error': error})}\n\n".encode(), CLOSED
