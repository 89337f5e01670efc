use crate::api::files::expire;
use crate::connections::{self, Patience};
use crate::{AppState, app};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

/// Serves until `shutdown` resolves.
///
/// 1. No new connections are taken, and a running training writes a checkpoint. 2. Running answers may finish, for at most `limits.drain`. 3. What is left is cut off. The caller then flushes its stores.
pub async fn run(listener: TcpListener, state: Arc<AppState>, shutdown: impl Future<Output = ()>) {
    let drain = state.limits.drain;
    let stop = CancellationToken::new();
    let background = in_background(&state, &stop);
    let mut serving = pin!(connections::serve(listener, app(state), Patience::default(), stop.clone()));
    // Serving ends only after a stop.
    tokio::select! {
        () = serving.as_mut() => {}
        () = shutdown => {
            info!("stopping: running answers may finish");
            stop.cancel();
            if tokio::time::timeout(drain, serving).await.is_err() {
                warn!(seconds = drain.as_secs(), "answers were still running at the end of the drain time and were cut off");
            }
        }
    }
    if tokio::time::timeout(drain.max(LEAST_WAIT), background.wait()).await.is_err() {
        warn!("a training has not written its checkpoint in time; it goes on from the one before");
    }
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
