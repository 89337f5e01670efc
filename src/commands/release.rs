use crate::Global;
use crate::assemble::{Library, RunningServer, configured, needed_models, now, running_server, settings};
use crate::commands::models::pull;
use crate::commands::when;
use crate::output::{hint, json, line};
use groundtone_config::Config;
use groundtone_evals::stats::{Decision, Standing};
use groundtone_provider::{get_json, post_json};
use groundtone_server::{ReleaseBody, ReleaseError, ReleaseStatus, Releases, RollbackBody};

/// Flags of `groundtone release`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// What answers now, and whether it is still what was released
    Status,
    /// Every change: what, when, by whom, why
    History,
    /// Let a variant, or an earlier release, answer everybody, at once
    Promote(Target),
    /// Let it answer a share of the conversations
    Canary {
        #[command(flatten)]
        target: Target,
        /// Percent of the conversations, 1 to 100
        #[arg(long)]
        percent: u8,
    },
    /// End the canary; without one, let what answered before answer again
    Rollback {
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
    },
}

#[derive(clap::Args)]
struct Target {
    /// A variant (`rag`, `tuned`, ...), or the id of a release (`rel_...`)
    name: String,
    /// The evaluation that speaks for it, by its id: `groundtone eval run` prints it
    #[arg(long, value_name = "ID")]
    evaluation: Option<String>,
    /// Release it although something speaks against it: its name once more
    #[arg(long, value_name = "NAME", requires = "reason")]
    force: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
}

impl Target {
    fn body(self, percent: Option<u8>) -> ReleaseBody {
        let (variant, release) = if self.name.starts_with("rel_") { (None, Some(self.name)) } else { (Some(self.name), None) };
        let (force, reason) = (self.force, self.reason.unwrap_or_default());
        ReleaseBody { variant, release, evaluation: self.evaluation, percent, force, reason }
    }
}

/// What is asked of a server, or done here.
enum Wanted {
    Status,
    Promote(ReleaseBody),
    Canary(ReleaseBody),
    Rollback(RollbackBody),
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let action = args.action.unwrap_or(Action::Status);
    let history = matches!(action, Action::History);
    let wanted = match action {
        Action::Status | Action::History => Wanted::Status,
        Action::Promote(target) => Wanted::Promote(target.body(None)),
        Action::Canary { target, percent } => Wanted::Canary(target.body(Some(percent))),
        Action::Rollback { reason } => Wanted::Rollback(RollbackBody { reason }),
    };
    let status = match running_server(&config)? {
        Some(server) => ask_server(&server, wanted).await?,
        None => here(&config, wanted).await?,
    };
    match (global.json, history) {
        (true, _) => json(&status),
        (false, true) => show_history(&status),
        (false, false) => show(&status),
    }
}

async fn ask_server(server: &RunningServer, wanted: Wanted) -> anyhow::Result<ReleaseStatus> {
    let endpoint = &server.endpoint;
    let path = |action: &str| format!("/groundtone/releases/{action}");
    Ok(match wanted {
        Wanted::Status => get_json(endpoint, "/groundtone/releases").await,
        Wanted::Promote(body) => post_json(endpoint, &path("promote"), &body).await,
        Wanted::Canary(body) => post_json(endpoint, &path("canary"), &body).await,
        Wanted::Rollback(body) => post_json(endpoint, &path("rollback"), &body).await,
    }?)
}

/// Opens everything that would answer, because a release is of what there is.
async fn here(config: &Config, wanted: Wanted) -> anyhow::Result<ReleaseStatus> {
    pull(config, &needed_models(config)).await?;
    let library = Library::open(config, "groundtone release").await?;
    let answerer = library.answerer(config).await?;
    let releases = Releases::new(library.catalog.clone(), library.tenant.clone(), answerer, configured(config));
    let (actor, now) = ("the command line", now());
    let done = match wanted {
        Wanted::Status => releases.status().await,
        Wanted::Promote(body) => releases.promote(&body, actor, now).await,
        Wanted::Canary(body) => releases.canary(&body, actor, now).await,
        Wanted::Rollback(body) => releases.rollback(&body, actor, now).await,
    };
    done.map_err(explained)
}

fn explained(error: ReleaseError) -> anyhow::Error {
    match &error {
        ReleaseError::Objections { name, .. } => {
            hint(&error, format!("name an evaluation that passed (--evaluation), or release it all the same: --force {name} --reason WHY"))
        }
        ReleaseError::NoRelease(_) => hint(&error, "`groundtone release history` lists them"),
        ReleaseError::NoEvaluation(_) => hint(&error, "`groundtone eval run` makes one, `groundtone eval report` lists them"),
        _ => error.into(),
    }
}

fn show(status: &ReleaseStatus) -> anyhow::Result<()> {
    let live = &status.live;
    let release = live.release.as_deref().unwrap_or("nothing released; the configuration's variant");
    line(format!("{}: `{}` answers ({release})", status.assistant, live.variant))?;
    if let Some(canary) = &live.canary {
        line(format!("canary: `{}` answers {} % of the conversations ({})", canary.variant, canary.percent, canary.release))?;
    }
    if let Some(trial) = &status.trial {
        let says = match trial.decision {
            Decision::Continue => "nothing is shown yet",
            Decision::Pass => "it is shown to be within its margins",
            Decision::Stop { .. } => "it is shown to be worse",
        };
        line(format!("  since {}: {says}", when(trial.began_at)))?;
        for (signal, standing) in &trial.signals {
            let name = serde_json::to_value(signal)?;
            let name = name.as_str().unwrap_or_default().to_owned();
            let Standing { baseline, canary, baseline_count, canary_count, .. } = standing;
            line(format!("  {name:16}  canary {canary:.3} ({canary_count})  the others {baseline:.3} ({baseline_count})"))?;
        }
    }
    if let Some(shadow) = &live.shadow {
        line(format!("shadow: `{shadow}` gets a copy of every question"))?;
    }
    if !live.fallbacks.is_empty() {
        line(format!("fallbacks: {}", live.fallbacks.join(", ")))?;
    }
    status.drift.iter().try_for_each(|drift| line(format!("changed since: {drift}")))
}

fn show_history(status: &ReleaseStatus) -> anyhow::Result<()> {
    if status.history.is_empty() {
        return line("nothing was released yet");
    }
    for event in &status.history {
        let record = event.release.as_ref().and_then(|id| status.releases.iter().find(|record| record.id == *id));
        let when = chrono::DateTime::from_timestamp(event.at, 0).map(|at| at.format("%Y-%m-%d %H:%M:%S UTC").to_string());
        let mut text = format!("{}  {:8}  {}", when.unwrap_or_default(), event.action, event.release.as_deref().unwrap_or("-"));
        if let Some(record) = record {
            text.push_str(&format!("  {} ({})", record.variant, record.model));
            if let Some(forced) = record.forced.as_ref().filter(|_| event.action == "promote") {
                text.push_str(&format!("  forced: {forced}"));
            }
        }
        if let Some(percent) = event.percent {
            text.push_str(&format!("  {percent} %"));
        }
        text.push_str(&format!("  by {}", event.actor));
        if !event.reason.is_empty() {
            text.push_str(&format!(": {}", event.reason));
        }
        line(text)?;
    }
    Ok(())
}
