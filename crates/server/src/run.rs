use crate::api::files::expire;
use crate::{AppState, app};
use std::future::{Future, IntoFuture};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// The listener failed.
#[derive(Debug, thiserror::Error)]
#[error("the server stopped: {0}")]
pub struct RunError(#[from] std::io::Error);

/// Serves until `shutdown` resolves.
///
/// 1. No new connections are taken, and a running training writes a checkpoint. 2. Running answers may finish, for at most `limits.drain`. 3. What is left is cut off. The caller then flushes its stores.
pub async fn run(listener: TcpListener, state: Arc<AppState>, shutdown: impl Future<Output = ()> + Send + 'static) -> Result<(), RunError> {
    let drain = state.limits.drain;
    let (stopping, mut stopped) = watch::channel(false);
    let stop = CancellationToken::new();
    let background = in_background(&state, &stop);
    let signal = {
        let stop = stop.clone();
        async move {
            shutdown.await;
            info!("stopping: running answers may finish");
            stop.cancel();
            stopping.send_replace(true);
        }
    };
    let serving =
        axum::serve(listener, app(state).into_make_service_with_connect_info::<SocketAddr>()).with_graceful_shutdown(signal).into_future();
    let deadline = async move {
        // An error means that the signal's task is gone, which only happens when serving has ended.
        if stopped.wait_for(|stopping| *stopping).await.is_ok() {
            tokio::time::sleep(drain).await;
        } else {
            std::future::pending::<()>().await;
        }
    };
    let served = tokio::select! {
        result = serving => result.map_err(RunError::from),
        () = deadline => {
            warn!(seconds = drain.as_secs(), "answers were still running at the end of the drain time and were cut off");
            Ok(())
        }
    };
    stop.cancel();
    if tokio::time::timeout(drain.max(LEAST_WAIT), background.wait()).await.is_err() {
        warn!("a training has not written its checkpoint in time; it goes on from the one before");
    }
    served
}

/// A step of a training is over before this.
const LEAST_WAIT: Duration = Duration::from_secs(30);
/// How often files and uploads are looked at whose time may have come.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(60);

/// Trains, and removes what has expired, until `stop`.
fn in_background(state: &Arc<AppState>, stop: &CancellationToken) -> TaskTracker {
    let tasks = TaskTracker::new();
    let (jobs, until) = (state.tuning.clone(), stop.clone());
    tasks.spawn(async move {
        if let Err(error) = jobs.run(until).await {
            error!(%error, "fine-tuning jobs are not run: the catalog cannot be read");
        }
    });
    let (watching, until) = (state.clone(), stop.clone());
    tasks.spawn(async move { watching.releases.watch_canaries(&until).await });
    let (state, until) = (state.clone(), stop.clone());
    tasks.spawn(async move {
        while tokio::time::timeout(EXPIRY_INTERVAL, until.cancelled()).await.is_err() {
            if let Err(error) = expire(&state).await {
                warn!(?error, "expired files could not be removed");
            }
        }
    });
    tasks.close();
    tasks
}
