//! Connections: HTTP/1.1, a task for each, until the server stops.
//!
//! Not `axum::serve`: that waits for a request's head as long as its client likes, and looks for HTTP/2, which no client of ours speaks without TLS;
//! with both a connection takes 13 kB more.

use axum::Router;
use axum::extract::{ConnectInfo, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower_http::timeout::RequestBodyTimeoutLayer;
use tracing::{debug, warn};

/// How long a client is waited for.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    /// For the head of a request, the first one of a connection and those that follow.
    head: Duration,
    /// For the next piece of a request's body.
    body: Duration,
}

impl Default for Patience {
    /// As long as nginx waits.
    fn default() -> Self {
        Self { head: Duration::from_secs(75), body: Duration::from_secs(60) }
    }
}

/// How long nothing is accepted after the system could not give another connection.
const REST: Duration = Duration::from_secs(1);

/// Takes connections until `stop`, and then lets the requests that have begun end.
pub(crate) async fn serve(listener: TcpListener, app: Router, patience: Patience, stop: CancellationToken) {
    let app = app.layer(RequestBodyTimeoutLayer::new(patience.body));
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, peer)) => drop(connections.spawn(connection(stream, peer, app.clone(), patience.head, stop.clone()))),
            // The client has left before it was its turn.
            Err(error)
                if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused) => {}
            Err(error) => {
                warn!(%error, "no connection can be taken for a moment: too many files are open, or the memory is full");
                tokio::time::sleep(REST).await;
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(stream: TcpStream, peer: SocketAddr, app: Router, head: Duration, stop: CancellationToken) {
    // Pieces of an answer are small, and are not to wait for each other.
    if let Err(error) = stream.set_nodelay(true) {
        debug!(%error, "a connection keeps its delay");
    }
    let answer = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        app.clone().call(request)
    });
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(head);
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), answer));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        debug!(%peer, %error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Bytes;
    use axum::extract::rejection::BytesRejection;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    const PATIENCE: Patience = Patience { head: Duration::from_millis(400), body: Duration::from_millis(300) };

    /// Serves one route that says from where it was asked, after `wait`, and how long the body was that it could read.
    async fn served(wait: Duration) -> (SocketAddr, CancellationToken, tokio::task::JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let app = Router::new().route(
            "/",
            get(move |ConnectInfo(peer): ConnectInfo<SocketAddr>| async move {
                tokio::time::sleep(wait).await;
                peer.to_string()
            })
            .post(|body: Result<Bytes, BytesRejection>| async move { body.map(|body| body.len().to_string()) }),
        );
        (address, stop.clone(), tokio::spawn(serve(listener, app, PATIENCE, stop)))
    }

    async fn rest_of(mut stream: TcpStream) -> String {
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn a_stop_lets_what_has_begun_end_and_takes_nothing_new() {
        let (address, stop, served) = served(Duration::from_millis(100)).await;
        let mut asking = TcpStream::connect(address).await.unwrap();
        asking.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let idle = TcpStream::connect(address).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.cancel();
        let from = asking.local_addr().unwrap().to_string();
        let text = rest_of(asking).await;
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with(&from), "{text}");
        assert_eq!(rest_of(idle).await, "");
        served.await.unwrap();
        assert!(TcpStream::connect(address).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_does_not_say_what_it_wants_is_let_go() {
        let (address, _stop, _served) = served(Duration::ZERO).await;
        for head in ["", "GET / HTTP/1.1\r\nhost"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            let began = std::time::Instant::now();
            assert_eq!(rest_of(stream).await, "");
            assert!(began.elapsed() >= PATIENCE.head, "{:?}", began.elapsed());
        }
        for (body, least, answer) in [("x", PATIENCE.body, "HTTP/1.1 400"), ("xxx", Duration::ZERO, "HTTP/1.1 200")] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let head = "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: 3\r\n\r\n";
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            let began = std::time::Instant::now();
            let text = rest_of(stream).await;
            assert!(text.starts_with(answer) && began.elapsed() >= least, "{text} after {:?}", began.elapsed());
        }
    }
}
