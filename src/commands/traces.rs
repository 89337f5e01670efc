use crate::Global;
use crate::assemble::{Library, RunningServer, data_directory, needed_models, running_server, settings};
use crate::commands::models::pull;
use crate::commands::when;
use crate::output::{hint, json, line};
use groundtone_catalog::{Catalog, DataDirectory, Outcome, Thumb, TraceFilter, TraceRecord};
use groundtone_config::Config;
use groundtone_provider::{get_json, post_json};
use groundtone_server::{Replay, ReplayBody, Replayed, TraceList};
use groundtone_telemetry::Redactor;
use groundtone_types::Tenant;
use std::fmt::Write;
use std::sync::Arc;

/// Flags of `groundtone traces`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(clap::Subcommand)]
enum Action {
    /// The latest answers, newest first
    List(ListArgs),
    /// Everything that is kept of one answer
    Show {
        /// Its trace id
        id: String,
    },
}

#[derive(clap::Args, Default)]
struct ListArgs {
    /// Only those with this feedback: up or down
    #[arg(long, value_parser = thumb)]
    thumb: Option<Thumb>,
    /// Only those that ended so: answered, abstained, failed or cancelled
    #[arg(long, value_parser = outcome)]
    outcome: Option<Outcome>,
    /// Only those of this variant
    #[arg(long)]
    variant: Option<String>,
    /// Only those older than this one
    #[arg(long, value_name = "ID")]
    before: Option<String>,
    /// How many
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

fn thumb(text: &str) -> Result<Thumb, String> {
    serde_json::from_value(text.into()).map_err(|_| "up or down".to_owned())
}

fn outcome(text: &str) -> Result<Outcome, String> {
    serde_json::from_value(text.into()).map_err(|_| "answered, abstained, failed or cancelled".to_owned())
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let book = TraceBook::open(&config, &Tenant::default(), "groundtone traces").await?;
    match args.action.unwrap_or_else(|| Action::List(ListArgs { limit: 20, ..ListArgs::default() })) {
        Action::List(list) => {
            let filter = TraceFilter { thumb: list.thumb, outcome: list.outcome, variant: list.variant, before: list.before };
            let traces = book.page(&filter, list.limit).await?;
            if global.json { json(&TraceList { traces }) } else { show_list(&traces) }
        }
        Action::Show { id } => {
            let trace = book.one(&id).await?;
            if global.json { json(&trace) } else { line(serde_json::to_string_pretty(&trace)?) }
        }
    }
}

const ADMIN: &str = "`groundtone traces` lists what is kept";
/// Traces that are read at once.
const PAGE: u32 = 50;
/// How the ids of an evaluation's requests begin.
pub(crate) const EVALUATION: &str = "groundtone-eval-";

/// Where traces are kept: our own catalog, or that of the server that has it open.
pub(crate) enum TraceBook {
    Own { catalog: Arc<Catalog>, tenant: Tenant, _directory: Option<DataDirectory> },
    Server(RunningServer),
}

impl TraceBook {
    /// Opens it. A server shows the traces of the tenant that its key is of.
    pub(crate) async fn open(config: &Config, tenant: &Tenant, command: &str) -> anyhow::Result<Self> {
        if let Some(server) = running_server(config)? {
            if *tenant != Tenant::default() {
                let message = format!("the server at {} shows the traces of its key's tenant", server.address);
                return Err(hint(message, "leave --tenant out and name a key of that tenant in `server.api_key_env`, or stop the server"));
            }
            return Ok(Self::Server(server));
        }
        let directory = data_directory(config, command)?;
        let catalog = Arc::new(Catalog::open(&directory).await?);
        Ok(Self::Own { catalog, tenant: tenant.clone(), _directory: Some(directory) })
    }

    /// The newest that a filter admits.
    async fn page(&self, filter: &TraceFilter, limit: u32) -> anyhow::Result<Vec<TraceRecord>> {
        let server = match self {
            Self::Own { catalog, tenant, .. } => return Ok(catalog.traces(tenant, filter, limit).await?),
            Self::Server(server) => server,
        };
        let mut path = format!("/groundtone/traces?limit={limit}");
        let pairs = [
            ("thumb", filter.thumb.map(Thumb::as_str)),
            ("outcome", filter.outcome.map(Outcome::as_str)),
            ("variant", filter.variant.as_deref()),
            ("before", filter.before.as_deref()),
        ];
        for (name, text) in pairs {
            if let Some(text) = text {
                write!(path, "&{name}={text}")?;
            }
        }
        let found: TraceList = get_json(&server.endpoint, &path).await.map_err(|error| hint(error, ADMIN))?;
        Ok(found.traces)
    }

    async fn one(&self, id: &str) -> anyhow::Result<TraceRecord> {
        match self {
            Self::Own { catalog, tenant, .. } => {
                let found = catalog.trace(tenant, id).await?;
                found.ok_or_else(|| hint(format!("there is no trace `{id}`"), "`groundtone traces` lists them"))
            }
            Self::Server(server) => {
                get_json(&server.endpoint, &format!("/groundtone/traces/{id}")).await.map_err(|error| hint(error, ADMIN))
            }
        }
    }

    /// Every trace that a filter admits, newest first, at most so many, without its snippets and redacted as the settings say today.
    /// What an evaluation asked is nobody's question and is left out.
    pub(crate) async fn each(
        &self,
        mut filter: TraceFilter,
        most: usize,
        redactor: &Redactor,
        mut visit: impl FnMut(TraceRecord),
    ) -> anyhow::Result<()> {
        let mut left = most;
        while left > 0 {
            let page = self.page(&filter, PAGE.min(u32::try_from(left).unwrap_or(PAGE))).await?;
            left -= page.len().min(left);
            let Some(last) = page.last() else { break };
            filter.before = Some(last.id.clone());
            let by_people = |trace: &TraceRecord| !trace.request_id.as_ref().is_some_and(|id| id.starts_with(EVALUATION));
            for mut trace in page.into_iter().filter(by_people) {
                trace.snippets.clear();
                trace.redact(|text| redactor.redact(text).into_owned());
                visit(trace);
            }
        }
        Ok(())
    }
}

fn show_list(traces: &[TraceRecord]) -> anyhow::Result<()> {
    for trace in traces {
        let thumb = trace.feedback.as_ref().map_or("", |feedback| match feedback.thumb {
            Thumb::Up => "  +",
            Thumb::Down => "  -",
        });
        let question: String = trace.question.chars().take(80).collect();
        let question = question.replace('\n', " ");
        line(format!("{}  {}  {}  {}{thumb}  {question}", trace.id, when(trace.at), trace.outcome.as_str(), trace.variant))?;
    }
    if traces.is_empty() { line("no traces") } else { Ok(()) }
}

/// Flags of `groundtone replay`.
#[derive(clap::Args)]
pub(crate) struct ReplayArgs {
    /// The trace of the answer
    id: String,
    /// How many snippets
    #[arg(long)]
    top_k: Option<usize>,
    /// Sampling temperature
    #[arg(long)]
    temperature: Option<f32>,
    /// Most tokens of the answer
    #[arg(long)]
    max_tokens: Option<u32>,
    /// Seed of the sampler
    #[arg(long)]
    seed: Option<u64>,
    /// Another chat model (chat.model); not beside a running server
    #[arg(long)]
    model: Option<String>,
    /// Any other setting, as KEY=VALUE; not beside a running server
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub(crate) async fn replay(global: &Global, args: ReplayArgs) -> anyhow::Result<()> {
    let body = ReplayBody { top_k: args.top_k, temperature: args.temperature, max_tokens: args.max_tokens, seed: args.seed };
    body.check().map_err(|(_, reason)| hint(reason, "see `groundtone replay --help`"))?;
    let mut flags: Vec<(&str, String)> = args.model.iter().map(|model| ("chat.model", model.clone())).collect();
    for pair in &args.set {
        let (key, text) = pair.split_once('=').ok_or_else(|| hint(format!("--set {pair} has no `=`"), "write KEY=VALUE"))?;
        flags.push((key, text.to_owned()));
    }
    let config = settings(global, &flags)?;
    let replay = match running_server(&config)? {
        Some(server) if flags.is_empty() => {
            let path = format!("/groundtone/traces/{}/replay", args.id);
            post_json(&server.endpoint, &path, &body).await.map_err(|error| hint(error, ADMIN))?
        }
        Some(server) => {
            let message = format!("the server at {} answers with its own model and settings", server.address);
            return Err(hint(message, "stop it for --model and --set, or replay without them"));
        }
        None => {
            pull(&config, &needed_models(&config)).await?;
            let library = Library::open(&config, "groundtone replay").await?;
            let trace = library.catalog.trace(&library.tenant, &args.id).await?;
            let trace = trace.ok_or_else(|| hint(format!("there is no trace `{}`", args.id), "`groundtone traces` lists them"))?;
            Replay::run(&library.answerer(&config).await?, &library.tenant, trace, &body).await?
        }
    };
    if global.json { json(&replay) } else { show_replay(&replay) }
}

fn show_replay(replay: &Replay) -> anyhow::Result<()> {
    line(format!("{}\n", replay.question))?;
    for (name, answer) in [("then", &replay.then), ("now", &replay.now)] {
        line(format!("{name}: {} ({}, {} snippets{})\n", answer.answer.trim(), answer.model, answer.snippets.len(), tokens(answer)))?;
    }
    let difference = &replay.difference;
    let yes = |what: bool, says: &str| if what { line(says) } else { Ok(()) };
    difference.snippets_gone.iter().try_for_each(|title| line(format!("- {title}")))?;
    difference.snippets_new.iter().try_for_each(|title| line(format!("+ {title}")))?;
    yes(difference.abstained, "one of the two abstained")?;
    yes(difference.model, "another model wrote it")?;
    yes(difference.prompt_fingerprint, "the prompt contract is another one")?;
    line(if difference.answer { "the answer is another one" } else { "the answer is the same" })
}

fn tokens(answer: &Replayed) -> String {
    answer.usage.map(|usage| format!(", {} + {} tokens", usage.prompt_tokens, usage.completion_tokens)).unwrap_or_default()
}
