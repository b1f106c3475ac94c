//! The API's sockets: a bounded number of connections, each with a clock.
//!
//! Owns: the thread, the listener, the connections. What a request means is the router's matter.
//! Invariants: a head that does not come in time is answered 408; a connection ends
//! at last after ten minutes, whatever its peer does or does not do.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::answer::Answer;
use super::{Desk, Live, Present, Services, router};
use crate::protocol::limits::Limit;

/// API connections at once; more wait in the kernel.
const CONNECTIONS_MAX: u32 = 1024;
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 32 << 10;
const LIFE_TIME: Duration = Duration::from_secs(600);
/// For the last answers, after the end was announced.
const GRACE: Duration = Duration::from_secs(2);
/// For what a peer still sends while our last answer is on its way.
const LINGER: Duration = Duration::from_secs(1);

/// A running API.
pub struct Control {
    address: SocketAddr,
    live: Present,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// The first of two steps: the node's name holds the port, and the node is complete only later.
pub fn bind(listen: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = std::net::TcpListener::bind(listen)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// The second: starts the thread. Without an API key the listener must be on loopback.
pub fn serve(
    listener: std::net::TcpListener,
    live: Live,
    services: Services,
) -> io::Result<Control> {
    let address = listener.local_addr()?;
    if live.api_key.is_none() && !address.ip().is_loopback() {
        let why = "without an API key the API listens on loopback only";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let live = Present::new(live);
    let desk = Arc::new(Desk::new(live.clone(), services));
    let router = router(desk.clone());
    let (stop, stopped) = watch::channel(false);
    let thread = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => accept(listener, router, desk, stopped).await,
                    Err(error) => tracing::error!(%error, "the API cannot be served"),
                }
            });
        })?;
    Ok(Control {
        address,
        live,
        stop,
        thread,
    })
}

impl Control {
    /// Where it listens, with the real port.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From the next request on. Whoever drops the key sees to it that the listener is on loopback.
    pub fn reload(&self, live: Live) {
        self.live.set(live);
    }

    /// Takes no more requests, answers those that came, and ends, in two seconds at most.
    pub fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.thread.join();
    }
}

async fn accept(
    listener: TcpListener,
    router: Router,
    desk: Arc<Desk>,
    mut stopped: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX as usize));
    loop {
        let newcomer = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            newcomer = newcomer => newcomer,
            _ = stopped.wait_for(|&is_stopped| is_stopped) => break,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = converse(stream, router.clone(), desk.clone(), stopped.clone());
                tokio::spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                // Mostly too many descriptors: others must go before it can work again.
                tracing::warn!(%error, "an API connection could not be accepted");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let _ = timeout(GRACE, places.acquire_many(CONNECTIONS_MAX)).await;
}

/// One connection, from its first request to its last.
async fn converse(
    stream: TcpStream,
    router: Router,
    desk: Arc<Desk>,
    mut stopped: watch::Receiver<bool>,
) {
    let head_time = desk.live.get().rules.limits.http_header_secs;
    let head_time = Duration::from_secs(head_time.into());
    let _ = stream.set_nodelay(true);
    let has_length = Arc::new(AtomicBool::new(false));
    let stream = Watched {
        stream,
        matched: Some(0),
        has_length: has_length.clone(),
    };
    let inner = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        let has_length = has_length.swap(false, Relaxed);
        if has_length && request.headers().contains_key(header::TRANSFER_ENCODING) {
            request.extensions_mut().insert(Ambiguous);
        }
        inner.call(request)
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_time)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let ended = tokio::select! {
        ended = poll_fn(|cx| connection.poll_without_shutdown(cx)) => Some(ended),
        () = sleep(LIFE_TIME) => None,
        _ = stopped.wait_for(|&is_stopped| is_stopped) => None,
    };
    let is_late = match ended {
        Some(ended) => ended.is_err_and(|error| error.is_timeout()),
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            let _ = timeout(GRACE, poll_fn(|cx| connection.poll_without_shutdown(cx))).await;
            false
        }
    };
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner().stream;
    if is_late && !parts.read_buf.is_empty() {
        desk.note_strike(Limit::HttpHeader);
        let _ = timeout(LINGER, stream.write_all(&late().await)).await;
    }
    // Closing with unread bytes would reset the connection, and the answer could be lost.
    let _ = stream.shutdown().await;
    let _ = timeout(LINGER, drain(&mut stream)).await;
}

async fn drain(stream: &mut TcpStream) {
    let mut waste = [0; 4096];
    while stream.read(&mut waste).await.is_ok_and(|n| n > 0) {}
}

/// The answer to a head that did not come in time.
async fn late() -> Vec<u8> {
    let msg = "the head of the request took too long";
    let answer = Answer::error(StatusCode::REQUEST_TIMEOUT, msg).into_response();
    let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
        .await
        .unwrap_or_default();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 408 Request Timeout\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    [head.as_bytes(), &body].concat()
}

/// A request that gave its length in two ways, so that a proxy in between may have read another
/// one than we do. hyper believes one and hides the other; the wire still had both.
#[derive(Clone, Copy)]
pub struct Ambiguous;

/// The socket, watched for lines that begin with `Content-Length:`. Bodies are JSON, whose lines
/// do not.
struct Watched {
    stream: TcpStream,
    /// How much of the name the current line has matched, none if it is another line.
    matched: Option<usize>,
    has_length: Arc<AtomicBool>,
}

impl Watched {
    fn watch(&mut self, bytes: &[u8]) {
        const NAME: &[u8] = b"content-length:";
        for byte in bytes {
            self.matched = match self.matched {
                _ if *byte == b'\n' => Some(0),
                Some(n) if NAME.get(n) == Some(&byte.to_ascii_lowercase()) => Some(n + 1),
                _ => None,
            };
            if self.matched == Some(NAME.len()) {
                self.has_length.store(true, Relaxed);
            }
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        self.watch(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
