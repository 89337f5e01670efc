use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// One thing that a [`RawServer`] does on a connection.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes as they are.
    Send(Vec<u8>),
    /// Sends bytes one at a time, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Sends the same bytes again and again, with a pause before each.
    Forever(Vec<u8>, Duration),
    /// Waits.
    Pause(Duration),
    /// Breaks the connection with a reset.
    Reset,
}

type Play = dyn Fn(&str) -> Vec<Step> + Send + Sync;

struct Shared {
    play: Box<Play>,
    requests: AtomicUsize,
    gone: Mutex<Vec<Instant>>,
}

/// A server below HTTP: it reads a request, and then does what its script says, byte by byte; at the end of the script it hangs up.
/// Runs on a thread of its own, so it serves tests with and without a runtime; stops when dropped.
pub struct RawServer {
    /// `http://127.0.0.1:PORT/v1`.
    pub base_url: String,
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl RawServer {
    /// `play` is given the body of each request and says what to do.
    pub fn start(play: impl Fn(&str) -> Vec<Step> + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared { play: Box::new(play), requests: AtomicUsize::new(0), gone: Mutex::default() });
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let base_url = format!("http://{}/v1", listener.local_addr().expect("an address"));
        let stop = CancellationToken::new();
        let (serving, stopped) = (shared.clone(), stop.clone());
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener");
                loop {
                    tokio::select! {
                        () = stopped.cancelled() => return,
                        accepted = listener.accept() => {
                            let (stream, _) = accepted.expect("a connection");
                            tokio::spawn(serve(stream, serving.clone()));
                        }
                    }
                }
            });
        });
        Self { base_url, shared, stop }
    }

    /// How many requests have come.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// When clients hung up before the script's end.
    pub fn gone(&self) -> Vec<Instant> {
        self.shared.gone.lock().expect("not poisoned").clone()
    }
}

impl Drop for RawServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    stream.set_nodelay(true).expect("a socket without delay");
    let Some(body) = read_request(&mut stream).await else { return };
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let steps = (shared.play)(&body);
    let (mut reader, mut writer) = stream.split();
    let mut rest = [0; 1024];
    let hung_up = async { while reader.read(&mut rest).await.is_ok_and(|read| read > 0) {} };
    tokio::select! {
        reset = perform(&mut writer, steps) => {
            if reset {
                stream.set_zero_linger().expect("a socket that can be reset");
            }
        }
        () = hung_up => shared.gone.lock().expect("not poisoned").push(Instant::now()),
    }
}

/// True when the script ends with a reset.
async fn perform(writer: &mut (impl AsyncWriteExt + Unpin), steps: Vec<Step>) -> bool {
    for step in steps {
        // A client that has left is noticed by the reading side.
        let sent = match step {
            Step::Send(bytes) => writer.write_all(&bytes).await,
            Step::Drip(bytes, pause) => {
                for byte in bytes {
                    tokio::time::sleep(pause).await;
                    if writer.write_all(&[byte]).await.is_err() {
                        std::future::pending::<()>().await;
                    }
                }
                Ok(())
            }
            Step::Forever(bytes, pause) => loop {
                tokio::time::sleep(pause).await;
                if let Err(error) = writer.write_all(&bytes).await {
                    break Err(error);
                }
            },
            Step::Pause(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
            Step::Reset => return true,
        };
        if sent.is_err() {
            std::future::pending::<()>().await;
        }
    }
    false
}

/// Reads one request and gives its body; `None` if the client hung up.
async fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8192];
    loop {
        let read = stream.read(&mut chunk).await.ok().filter(|&read| read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let Some(head) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = String::from_utf8_lossy(&bytes[..head]).to_lowercase();
        let length =
            text.lines().find_map(|line| line.strip_prefix("content-length:")).map_or(0, |value| value.trim().parse().expect("a length"));
        if bytes.len() >= head + 4 + length {
            return Some(String::from_utf8_lossy(&bytes[head + 4..]).into_owned());
        }
    }
}
