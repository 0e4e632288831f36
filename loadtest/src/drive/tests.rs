use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const OBJECTIVE: Objective = Objective { ttft: Duration::from_secs(9), itl: Duration::from_secs(9) };

const ANSWER: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n\
    data: {\"choices\":[{\"text\":\"a\"}]}\n\ndata: {\"choices\":[{\"text\":\"b\"}]}\n\n\
    data: {\"choices\":[],\"usage\":{\"prompt_tokens\":4,\"completion_tokens\":2}}\n\ndata: [DONE]\n\n";

const REFUSAL: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// A server that gives every request the same response, and counts those open at once.
async fn server(response: &'static str, open: Arc<AtomicU64>, most: Arc<AtomicU64>) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let (open, most) = (open.clone(), most.clone());
            tokio::spawn(async move {
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                answer(socket, response).await;
                open.fetch_sub(1, Ordering::SeqCst);
            });
        }
    });
    Target::new(&url, "m", None, Duration::from_secs(20)).unwrap()
}

/// Reads a request to the end of its body, a JSON object of one line.
async fn answer(mut socket: TcpStream, response: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if socket.read_buf(&mut request).await.unwrap() == 0 {
            return;
        }
    }
    socket.write_all(response.as_bytes()).await.unwrap();
}

#[tokio::test]
async fn a_closed_loop_makes_exactly_the_requests_asked_for() {
    let most = Arc::new(AtomicU64::new(0));
    let target = server(ANSWER, Arc::default(), most.clone()).await;
    let report = closed_loop(&target, &Workload::default(), OBJECTIVE, 3, Until::Requests(10)).await.unwrap();
    assert_eq!((report.completed, report.completion_tokens, report.prompt_tokens), (10, 20, 40));
    assert!(report.errors.is_empty(), "{report}");
    assert!(most.load(Ordering::SeqCst) <= 3);
}

#[tokio::test]
async fn an_open_loop_keeps_to_its_limit() {
    let most = Arc::new(AtomicU64::new(0));
    let target = server(ANSWER, Arc::default(), most.clone()).await;
    let arrivals = Arrivals { per_second: 5000.0, concurrent_max: 2 };
    let report =
        open_loop(&target, &Workload::default(), OBJECTIVE, arrivals, Until::Requests(20)).await.unwrap();
    assert_eq!(report.completed, 20);
    assert!(most.load(Ordering::SeqCst) <= 2);
}

#[tokio::test]
async fn refusals_are_counted_by_status() {
    let target = server(REFUSAL, Arc::default(), Arc::default()).await;
    let report = closed_loop(&target, &Workload::default(), OBJECTIVE, 1, Until::Requests(2)).await.unwrap();
    assert_eq!((report.completed, report.errors["429"]), (0, 2));
}
