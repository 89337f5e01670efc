use crate::{AppState, app};
use std::future::{Future, IntoFuture};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{info, warn};

/// The listener failed.
#[derive(Debug, thiserror::Error)]
#[error("the server stopped: {0}")]
pub struct RunError(#[from] std::io::Error);

/// Serves until `shutdown` resolves.
///
/// 1. No new connections are taken. 2. Running answers may finish, for at most `limits.drain`. 3. What is left is cut off. The caller then flushes its stores.
pub async fn run(listener: TcpListener, state: Arc<AppState>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
    let drain = state.limits.drain;
    let (stopping, mut stopped) = watch::channel(false);
    let signal = async move {
        shutdown.await;
        info!("stopping: running answers may finish");
        stopping.send_replace(true);
    };
    let serving = axum::serve(listener, app(state)).with_graceful_shutdown(signal).into_future();
    let deadline = async move {
        // An error means that the signal's task is gone, which only happens when serving has ended.
        if stopped.wait_for(|stopping| *stopping).await.is_ok() {
            tokio::time::sleep(drain).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        result = serving => Ok(result?),
        () = deadline => {
            warn!(seconds = drain.as_secs(), "answers were still running at the end of the drain time and were cut off");
            Ok(())
        }
    }
}
