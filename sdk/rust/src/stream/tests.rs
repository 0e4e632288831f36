use std::time::Duration;

use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::json;

use super::*;
use crate::generated::{ChatRequest, CompletionRequest, Message};
use crate::test_server::{Manner, Request, Server, response};

/// One `é`, so that cuts fall within a character, too.
const TEXTS: [&str; 4] = ["one", " tw\u{e9}", "", " three\n"];
const ID: &str = "0123456789abcdef";

/// The events from number `from` on, each by itself: the texts, and the end.
fn events(from: u64) -> Vec<String> {
    let chunk = |text: &str| {
        let choice = json!({ "index": 0, "delta": { "content": text }, "finish_reason": null });
        let chunk = json!({
            "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "system_fingerprint": "f", "choices": [choice],
        });
        chunk.to_string()
    };
    let data = TEXTS.into_iter().map(chunk).chain([DONE.to_owned()]);
    let numbered = (1..).zip(data).filter(|(number, _)| *number >= from);
    numbered.map(|(number, data)| format!("id: {number}\ndata: {data}\n\n")).collect()
}

fn events_after(request: &Request) -> String {
    events(request.header("last-event-id").unwrap().parse::<u64>().unwrap() + 1).concat()
}

fn stream_response(body: impl AsRef<[u8]>) -> Vec<u8> {
    response("200 OK", &format!("x-stream-id: {ID}\r\n"), body)
}

fn refusal(status: &str) -> Vec<u8> {
    let error = json!({ "message": "m", "type": "server_error", "param": null, "code": "c" });
    response(status, "", json!({ "error": error }).to_string())
}

/// Short pauses, long deadlines.
const PATIENCE: Patience = Patience {
    silence: Duration::from_secs(20),
    pause: Duration::from_millis(1),
    pause_max: Duration::from_millis(4),
    outage: Duration::from_secs(20),
};

fn client_of(server: &Server) -> Client {
    client_with(server, PATIENCE)
}

fn client_with(server: &Server, patience: Patience) -> Client {
    let mut client = server.client();
    client.patience = patience;
    client
}

fn question() -> ChatRequest {
    ChatRequest::new("m", [Message::user("?")])
}

async fn texts(mut stream: ChatStream) -> (Vec<String>, Option<Error>) {
    let mut texts = Vec::new();
    while let Some(next) = stream.next().await {
        match next {
            Ok(chunk) => texts.push(chunk.text().to_owned()),
            Err(error) => {
                assert!(stream.next().await.is_none(), "nothing follows an error");
                return (texts, Some(error));
            }
        }
    }
    (texts, None)
}

/// What a client has of a server's stream, and how often it asked for the rest.
async fn read(server: &Server, patience: Patience) -> (Vec<String>, Option<Error>, usize) {
    let client = client_with(server, patience);
    let (texts, error) = texts(client.chat_stream(&question()).await.unwrap()).await;
    (texts, error, rests(server))
}

fn rests(server: &Server) -> usize {
    server.asked().iter().filter(|request| request.path().starts_with("/v1/streams/")).count()
}

/// A server whose first response is cut and whose others are as `rest` writes them.
async fn broken(cut: usize, rest: impl Fn(&Request, usize) -> Vec<u8> + Send + Sync + 'static) -> Server {
    Server::start(move |request, before| match before {
        0 => stream_response(&events(1).concat()[..cut]),
        _ => rest(request, before),
    })
    .await
}

/// The place after the first event.
fn first() -> usize {
    events(1)[0].len()
}

/// `body` as HTTP's chunks of `size` bytes.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut coded = Vec::new();
    for chunk in body.chunks(size).chain([&[][..]]) {
        coded.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        coded.extend(chunk);
        coded.extend(b"\r\n");
    }
    coded
}

/// Cuts the first response at every byte of its body, which is `coded` and has all events before its last `tail` bytes.
async fn cut_everywhere(headers: &'static str, coded: Vec<u8>, tail: usize) {
    let length = coded.len();
    let server = Server::start(move |request, _| {
        if request.path().starts_with("/v1/streams/") {
            return stream_response(events_after(request));
        }
        let question: ChatRequest = serde_json::from_str(&request.body).unwrap();
        let cut: usize = question.model.parse().unwrap();
        response("200 OK", &format!("x-stream-id: {cut}\r\n{headers}"), &coded[..cut])
    })
    .await;
    let read = |cut: usize| {
        let client = client_of(&server);
        async move {
            let question = ChatRequest { model: cut.to_string(), ..question() };
            let (texts, error) = texts(client.chat_stream(&question).await.unwrap()).await;
            assert!(error.is_none(), "cut at {cut}: {error:?}");
            assert_eq!(texts, TEXTS, "cut at {cut}");
        }
    };
    stream::iter(0..=length).map(read).buffer_unordered(32).collect::<()>().await;
    assert_eq!(rests(&server), length - tail, "only what was whole was not asked for again");
}

#[tokio::test]
async fn every_chunk_comes_once_wherever_the_connection_breaks() {
    let body = format!(":\n\n{}", events(1).join(":\n\n")).into_bytes();
    cut_everywhere("transfer-encoding: chunked\r\n", chunked(&body, 50), "\r\n0\r\n\r\n".len()).await;
    cut_everywhere("", body, 0).await;
}

#[tokio::test]
async fn a_stream_that_breaks_after_every_event_comes_whole() {
    let server = broken(0, |request, _| {
        stream_response(events_after(request).split_inclusive("\n\n").next().unwrap())
    });
    let (texts, error, rests) = read(&server.await, PATIENCE).await;
    assert_eq!((texts.as_slice(), rests), (TEXTS.map(str::to_owned).as_slice(), 5), "{error:?}");
}

#[tokio::test]
async fn the_rest_is_asked_for_with_the_key_and_the_last_number() {
    let server = broken(first() + 10, |request, _| stream_response(events_after(request))).await;
    let client = client_of(&server).with_api_key("secret");
    let mut stream = client.chat_stream(&question()).await.unwrap();
    assert_eq!((stream.id(), stream.last_event_id()), (Some(ID), 0));
    while let Some(chunk) = stream.next().await {
        chunk.unwrap();
    }
    assert_eq!(stream.last_event_id(), TEXTS.len() as u64);
    let asked = server.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].path(), format!("/v1/streams/{ID}"));
    assert_eq!(asked[1].header("last-event-id"), Some("1"));
    assert!(asked.iter().all(|request| request.header("authorization") == Some("bearer secret")));
}

#[tokio::test]
async fn while_nobody_is_there_it_is_asked_again() {
    let server = broken(first(), |request, before| match before {
        1 => refusal("503 Service Unavailable"),
        2 => Vec::new(),
        3 => response("502 Bad Gateway", "", "<html>"),
        // A gateway that dies before it has sent anything.
        4 => stream_response(""),
        _ => stream_response(events_after(request)),
    });
    let (texts, error, rests) = read(&server.await, PATIENCE).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((texts.as_slice(), rests), (TEXTS.map(str::to_owned).as_slice(), 5));
}

#[tokio::test]
async fn events_that_come_again_are_dropped() {
    let server = broken(first() * 2, |_, _| stream_response(events(1).concat()));
    let (texts, error, _) = read(&server.await, PATIENCE).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(texts, TEXTS);
}

#[tokio::test]
async fn a_refused_rest_is_final() {
    for status in ["400 Bad Request", "401 Unauthorized", "404 Not Found", "500 Internal Server Error"] {
        let (texts, error, rests) = read(&broken(first(), move |_, _| refusal(status)).await, PATIENCE).await;
        let Some(Error::Api(error)) = error else { panic!("{status}: {error:?}") };
        assert_eq!((texts.len(), rests), (1, 1), "{status}");
        assert_eq!(error.status.map(|status| status.to_string()).as_deref(), Some(status));
        assert_eq!(error.code.as_deref(), Some("c"));
    }
}

#[tokio::test]
async fn an_error_within_a_stream_is_its_end() {
    let server = Server::start(|_, _| {
        let error =
            json!({ "error": { "message": "m", "type": "server_error", "param": null, "code": null } });
        stream_response(format!("{}data: {error}\n\n", events(1)[0]))
    });
    let (texts, error, rests) = read(&server.await, PATIENCE).await;
    let Some(Error::Api(error)) = error else { panic!("{error:?}") };
    assert_eq!((texts.len(), rests), (1, 0));
    assert_eq!(
        (error.status, error.message.as_str(), error.kind.as_deref()),
        (None, "m", Some("server_error"))
    );
}

#[tokio::test]
async fn a_stream_without_a_name_ends_where_it_breaks() {
    let server = Server::start(|_, _| response("200 OK", "", &events(1)[0])).await;
    let (texts, error, rests) = read(&server, PATIENCE).await;
    assert!(matches!(error, Some(Error::BrokenOff(None))), "{error:?}");
    assert_eq!((texts.len(), rests), (1, 0));
}

#[tokio::test]
async fn the_rest_is_given_up_when_nobody_has_it_in_time() {
    let server = broken(first(), |_, _| refusal("503 Service Unavailable")).await;
    let patience = Patience { outage: Duration::from_millis(100), ..PATIENCE };
    let (texts, error, rests) = read(&server, patience).await;
    let Some(Error::BrokenOff(Some(cause))) = error else { panic!("{error:?}") };
    assert!(matches!(*cause, Error::Api(_)), "{cause:?}");
    assert_eq!(texts.len(), 1);
    assert!(rests > 0);
}

#[tokio::test]
async fn a_silent_connection_counts_as_broken() {
    let server = Server::start_in(Manner::Open, |request, before| match before {
        0 => stream_response(&events(1)[0]),
        _ => stream_response(events_after(request)),
    });
    let patience = Patience { silence: Duration::from_millis(500), ..PATIENCE };
    let (texts, error, rests) = read(&server.await, patience).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((texts.as_slice(), rests), (TEXTS.map(str::to_owned).as_slice(), 1));
}

#[tokio::test]
async fn a_connection_that_says_little_is_not_silent() {
    let comments = ":\n\n".repeat(100);
    let manner = Manner::Slow(40, Duration::from_millis(100));
    let server =
        Server::start_in(manner, move |_, _| stream_response(format!("{comments}{}", events(1).concat())));
    // A third of what the whole takes.
    let patience = Patience { silence: Duration::from_secs(1), ..PATIENCE };
    let (texts, error, rests) = read(&server.await, patience).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!((texts.as_slice(), rests), (TEXTS.map(str::to_owned).as_slice(), 0));
}

#[tokio::test]
async fn a_stream_that_is_dropped_closes_its_connection() {
    let server = Server::start_in(Manner::Open, |_, _| stream_response(&events(1)[0])).await;
    let mut stream = client_of(&server).chat_stream(&question()).await.unwrap();
    assert!(stream.next().await.is_some());
    drop(stream);
    tokio::time::timeout(PATIENCE.silence, server.closed()).await.unwrap();
}

#[tokio::test]
async fn nothing_is_lost_when_a_wait_is_dropped() {
    let server = broken(first() + 10, |request, _| stream_response(events_after(request))).await;
    let mut stream = client_of(&server).chat_stream(&question()).await.unwrap();
    let mut texts = Vec::new();
    loop {
        tokio::select! {
            biased;
            next = stream.next() => match next {
                Some(chunk) => texts.push(chunk.unwrap().text().to_owned()),
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert_eq!(texts, TEXTS);
}

#[tokio::test]
async fn a_stream_is_taken_up_where_another_reader_left_it() {
    let server = Server::start(|request, before| match before {
        0 => Vec::new(),
        _ => stream_response(events_after(request)),
    })
    .await;
    let client = client_of(&server);
    let stream: ChatStream = client.read_stream("a/b?", 2).await.unwrap();
    let texts: Vec<_> = stream.into_stream().map(|chunk| chunk.unwrap().text().to_owned()).collect().await;
    assert_eq!(texts, TEXTS[2..]);
    assert_eq!(server.asked()[1].path(), "/v1/streams/a%2fb%3f");
    let server = Server::start(|_, _| refusal("404 Not Found")).await;
    let error = client_of(&server).read_stream::<ChatCompletionChunk>(ID, 0).await.unwrap_err();
    assert!(matches!(error, Error::Api(ApiError { status: Some(StatusCode::NOT_FOUND), .. })), "{error:?}");
}

#[tokio::test]
async fn an_undocumented_event_is_an_error() {
    let server = Server::start(|_, _| stream_response("id: 1\ndata: {}\n\n")).await;
    let (texts, error, rests) = read(&server, PATIENCE).await;
    assert!(matches!(error, Some(Error::Undocumented(_))), "{error:?}");
    assert_eq!((texts.len(), rests), (0, 0));
}

#[tokio::test]
async fn completions_are_read_on_alike() {
    let event = |number: u64| {
        let choice =
            json!({ "index": 0, "text": number.to_string(), "finish_reason": null, "logprobs": null });
        let chunk = json!({
            "id": "cmpl-1", "object": "text_completion", "created": 1, "model": "m", "system_fingerprint": "f",
            "choices": [choice],
        });
        format!("id: {number}\ndata: {chunk}\n\n")
    };
    let server = Server::start(move |_, before| match before {
        0 => stream_response(event(1)),
        _ => stream_response(format!("{}id: 3\ndata: {DONE}\n\n", event(2))),
    });
    let server = server.await;
    let client = client_of(&server);
    let stream = client.completion_stream(&CompletionRequest::new("m", "1")).await.unwrap();
    let texts: Vec<_> = stream.into_stream().map(|chunk| chunk.unwrap().text().to_owned()).collect().await;
    assert_eq!(texts, ["1", "2"]);
}
