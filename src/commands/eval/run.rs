use super::leaks::keep_apart;
use super::report::{files_of, show};
use super::under_test::{UnderTest, record};
use crate::Global;
use crate::assemble::{data_directory_at, now, settings};
use crate::output::{hint, json, line, say, watched};
use groundtone_config::Config;
use groundtone_evals::decide::{ArmRun, DecideSettings, DecisionReport, decide};
use groundtone_evals::metrics::usage::Prices;
use groundtone_evals::metrics::{
    Abstention, Citations, ExactMatch, Facts, Grounded, JsonSchema, LabelAccuracy, LabelF1, Labels, Metric, TokenF1, Voice, VoiceRules,
    VoiceSimilarity,
};
use groundtone_evals::run::{ArmSpec, Judge, Progress, RunSettings, Shot, Target, ask_all, judge_pair, read_arms};
use groundtone_evals::stats::minimum_detectable_effect;
use groundtone_evals::{Case, CaseSet};
use groundtone_provider::Endpoint;
use indicatif::{ProgressBar, ProgressStyle};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// Most classes that get a line of their own in the report.
const MOST_CLASSES: usize = 100;
/// Answers between two words about the progress, where no person watches.
const SAID_EVERY: usize = 100;

/// Flags of `groundtone eval run`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Held-out rows: JSONL of {"question", "answer", "label", "documents", "must_contain", "answerable", "group", ...} or {"messages": [...]}
    #[arg(long, value_name = "FILE")]
    set: PathBuf,
    /// Arms: prompted, few-shot, rag, tuned, tuned-rag (variants of the assistant), a model that the server has (ft:...), or a name of --arms-file
    #[arg(long, value_delimiter = ',', default_value = "prompted,rag")]
    arms: Vec<String>,
    /// Describes arms: `[[arm]]` with name, role, model, url, api_key_env, prompt, examples, shots, max_tokens
    #[arg(long, value_name = "FILE")]
    arms_file: Option<PathBuf>,
    /// A Groundtone that runs; else the one that holds the data directory, else one that is started for the run
    #[arg(long)]
    url: Option<String>,
    /// Examples for the arm few-shot
    #[arg(long, value_name = "FILE")]
    shots: Option<PathBuf>,
    /// System text for the arms prompted and few-shot, beside the assistant's own
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// Ask only so many rows, the first ones
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Training files that the set must not leak into; near duplicates count
    #[arg(long, value_name = "FILE")]
    train: Vec<PathBuf>,
    /// Leave leaked rows out instead of refusing the set
    #[arg(long)]
    drop_leaked: bool,
    /// Answers at the same time
    #[arg(long, default_value_t = 2)]
    parallel: usize,
    /// Most tokens of an answer
    #[arg(long, value_name = "N")]
    max_tokens: Option<u32>,
    /// Ask again what an unfinished run has answered already
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    measure: Measure,
    #[command(flatten)]
    judge: JudgeArgs,
    /// Folder for report.html and report.json; below the data directory where not given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What the evaluation is called; the set's file name where not given
    #[arg(long)]
    name: Option<String>,
}

/// What is measured, and what decides.
#[derive(clap::Args)]
struct Measure {
    /// The metric that decides: label_accuracy, facts, json_schema, token_f1, voice_rules, groundedness, exact_match, ...
    #[arg(long)]
    metric: Option<String>,
    /// How much worse still counts as the same
    #[arg(long, default_value_t = 0.05)]
    margin: f64,
    /// What is good enough, between 0 and 1
    #[arg(long)]
    target: Option<f64>,
    /// JSON schema that answers must keep
    #[arg(long, value_name = "FILE")]
    schema: Option<PathBuf>,
    /// Rules of the voice: `[[rule]]` with name, must_match, must_not_match, must_contain, must_not_contain, min_words, max_words, max_sentences
    #[arg(long, value_name = "FILE")]
    voice: Option<PathBuf>,
    /// Answers in the brand's voice (a set), for voice_similarity; never the test set itself
    #[arg(long, value_name = "FILE")]
    voice_examples: Option<PathBuf>,
    /// Prices: a TOML table for each arm or model, or `[default]`: prompt_per_million, completion_per_million, machine_per_hour, fixed
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Beginning of an answer that says that it does not know, beside the assistant's abstain text
    #[arg(long, value_name = "TEXT")]
    abstain: Vec<String>,
    /// Draws of the bootstrap
    #[arg(long, default_value_t = 2_000)]
    resamples: usize,
    /// Seed of the bootstrap and of samplers
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// A model that compares answers.
#[derive(clap::Args)]
struct JudgeArgs {
    /// A model that compares each arm with the first, in both orders
    #[arg(long, value_name = "MODEL", requires = "judge_url")]
    judge: Option<String>,
    /// Its server, as in the SDKs' base_url
    #[arg(long, value_name = "URL")]
    judge_url: Option<String>,
    /// The variable that holds that server's key
    #[arg(long, value_name = "NAME", default_value = "")]
    judge_key_env: String,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    check(&args)?;
    let config = settings(global, &[])?;
    let mut set = read_set(&args.set)?;
    let dropped = keep_apart(&mut set, &args.train, args.drop_leaked)?;
    set.cases.truncate(args.limit.unwrap_or(usize::MAX));
    let specs = specs(&args, &config)?;
    let metrics = metrics(&args.measure, &set)?;
    before(&set, &specs, dropped);
    let mut under_test = UnderTest::find(&config, args.url.as_deref()).await?;
    let outcome = asked(&args, &config, &set, specs, &metrics, &mut under_test).await;
    let mut report = match outcome {
        Ok(report) => report,
        Err(error) => {
            under_test.stop().await;
            return Err(error);
        }
    };
    if let Some(name) = &args.name {
        report.set.name.clone_from(name);
    }
    let folder = args.out.clone().unwrap_or_else(|| files_of(&config, &report.id));
    let written = write(&folder, &report);
    let stored = under_test.store(&record(&report, &report.set.name)?).await;
    under_test.stop().await;
    written?;
    if let Err(error) = stored {
        say(format!("not stored in the catalog: {error}"));
    }
    if global.json {
        return json(&report);
    }
    show(&report)?;
    line(format!("\nreport: {}", folder.join("report.html").display()))
}

fn check(args: &Args) -> anyhow::Result<()> {
    let share = |flag: &str, value: f64, most: f64| {
        if (0.0..=most).contains(&value) {
            Ok(())
        } else {
            Err(hint(format!("{flag} must be between 0 and {most}"), "0.05 is five points of a hundred"))
        }
    };
    share("--margin", args.measure.margin, 0.5)?;
    share("--target", args.measure.target.unwrap_or(0.0), 1.0)?;
    if !(100..=100_000).contains(&args.measure.resamples) {
        return Err(hint("--resamples must be between 100 and 100000", "2000 are enough for a decision"));
    }
    let mut names = args.arms.clone();
    names.sort_unstable();
    names.dedup();
    if names.len() != args.arms.len() {
        return Err(hint("an arm is named twice in --arms", "each arm is asked once"));
    }
    Ok(())
}

/// A set; where `dataset build` wrote it, its questions come from the rows file beside it, because its own prompts hold sources already.
fn read_set(path: &Path) -> anyhow::Result<CaseSet> {
    let mut set = CaseSet::read(path)
        .map_err(|error| hint(error, "each line is a JSON object with `question` and `answer`, or OpenAI chat messages"))?;
    let rows = groundtone_datasets::DatasetPaths::of(path).rows;
    if !rows.is_file() {
        return Ok(set);
    }
    let mut records = Vec::new();
    for entry in groundtone_datasets::read_entries(&rows)? {
        if let groundtone_datasets::Entry::Row(row) = entry? {
            records.push(row);
        }
    }
    if records.len() != set.cases.len() {
        return Err(hint(
            format!("{} describes {} rows, but the set has {}", rows.display(), records.len(), set.cases.len()),
            "build or split the dataset again",
        ));
    }
    for (case, row) in set.cases.iter_mut().zip(records) {
        case.id = row.example;
        case.question = row.question;
        case.history.clear();
        case.answer = case.answer.take().map(|answer| groundtone_prompt::strip_citations(&answer));
        (case.label, case.group, case.documents) = (row.label, row.group, row.documents);
    }
    Ok(set)
}

fn specs(args: &Args, config: &Config) -> anyhow::Result<Vec<ArmSpec>> {
    let assistant = &config.assistant.name;
    let known = match &args.arms_file {
        Some(path) => read_arms(path, assistant)?,
        None => Vec::new(),
    };
    let prompt = args
        .prompt
        .as_ref()
        .map(std::fs::read_to_string)
        .transpose()
        .map_err(|error| hint(format!("--prompt: {error}"), "name a text file"))?;
    let shots = args.shots.as_ref().map(|path| Shot::read(path, usize::MAX)).transpose()?;
    let mut specs = Vec::new();
    for name in &args.arms {
        let mut arm = known.iter().find(|arm| arm.name == *name).cloned().unwrap_or_else(|| ArmSpec::of_name(name, assistant));
        let own = !known.iter().any(|arm| arm.name == *name);
        if own && (name == "prompted" || name == "few-shot") {
            arm.prompt = prompt.as_ref().map(|text| text.trim().to_owned());
        }
        if own && name == "few-shot" {
            arm.shots = shots.clone().ok_or_else(|| hint("the arm few-shot has no examples", "name a file of them with --shots"))?;
        }
        arm.max_tokens = arm.max_tokens.or(args.max_tokens);
        specs.push(arm);
    }
    Ok(specs)
}

fn metrics(args: &Measure, set: &CaseSet) -> anyhow::Result<Vec<Box<dyn Metric>>> {
    let mut found: Vec<Box<dyn Metric>> = vec![Box::new(ExactMatch), Box::new(Facts), Box::new(TokenF1), Box::new(Grounded)];
    found.extend([Citations::Precision, Citations::Recall].map(|metric| Box::new(metric) as Box<dyn Metric>));
    if set.cases.iter().any(|case| case.answerable == Some(false)) {
        found.extend([Abstention::Precision, Abstention::Recall].map(|metric| Box::new(metric) as Box<dyn Metric>));
    }
    let labels = Labels::of(&set.cases);
    if !labels.names().is_empty() {
        found.push(Box::new(LabelAccuracy(labels.clone())));
        found.push(Box::new(LabelF1 { labels: labels.clone(), only: None }));
        for at in (0..).take(labels.names().len().min(MOST_CLASSES)) {
            found.push(Box::new(LabelF1 { labels: labels.clone(), only: Some(at) }));
        }
    }
    if let Some(schema) = &args.schema {
        found.push(Box::new(JsonSchema::read(schema)?));
    }
    if let Some(rules) = &args.voice {
        let rules = VoiceRules::read(rules)?;
        found.push(Box::new(Voice { rules: rules.clone(), only: None }));
        for at in 0..rules.names().count() {
            found.push(Box::new(Voice { rules: rules.clone(), only: Some(at) }));
        }
    }
    if let Some(examples) = &args.voice_examples {
        let examples = CaseSet::read(examples)?;
        let texts: Vec<String> = examples.cases.into_iter().filter_map(|case| case.answer).collect();
        found.push(Box::new(VoiceSimilarity::of(&texts)));
    }
    Ok(found)
}

/// What the run can show, before it costs anything.
fn before(set: &CaseSet, arms: &[ArmSpec], dropped: usize) {
    let mut clusters: Vec<String> = set.cases.iter().map(Case::cluster).collect();
    clusters.sort_unstable();
    clusters.dedup();
    if dropped > 0 {
        say(format!("{dropped} rows are left out because they are in the training data"));
    }
    let effect = |discordance: f64| {
        minimum_detectable_effect(clusters.len() as f64, discordance)
            .map_or_else(|| "none".to_owned(), |effect| format!("{:.1} points", effect * 100.0))
    };
    say(format!(
        "{} rows ({} independent) for each of {} arms; the smallest difference that they show with 80 % power is {} where arms disagree on a fifth of the rows, {} where on a tenth",
        set.cases.len(),
        clusters.len(),
        arms.len(),
        effect(0.2),
        effect(0.1)
    ));
}

/// Asks, judges and decides.
async fn asked(
    args: &Args,
    config: &Config,
    set: &CaseSet,
    specs: Vec<ArmSpec>,
    metrics: &[Box<dyn Metric>],
    under_test: &mut UnderTest,
) -> anyhow::Result<DecisionReport> {
    let folder = config.data.directory.join("evals").join("answers");
    let _turn = data_directory_at(&folder, "groundtone eval run")?;
    let open = OpenRun::of(&folder, args, set, &specs, under_test)?;
    let targets = targets(specs, under_test, &open.state)?;
    let run = RunSettings { parallel: args.parallel.clamp(1, 256), temperature: 0.0, seed: i64::try_from(args.measure.seed).unwrap_or(0) };
    let progress = progress();
    let asking = async { Ok(ask_all(set, &targets, &folder.join("answers.jsonl"), &run, &progress).await?) };
    let runs: Vec<ArmRun> = under_test.during(asking).await?;
    open.close();
    let measure = &args.measure;
    let mut abstain = measure.abstain.clone();
    abstain.push(config.assistant.abstain.clone());
    let settings = DecideSettings {
        id: format!("eval-{}", uuid::Uuid::now_v7().simple()),
        created_at: now(),
        command: typed(),
        primary: measure.metric.clone(),
        margin: measure.margin,
        target: measure.target,
        resamples: measure.resamples,
        seed: measure.seed,
        parallel: run.parallel,
        prices: measure.prices.as_ref().map(|path| Prices::read(path)).transpose()?.unwrap_or_default(),
        abstain,
    };
    let mut report = tokio::task::block_in_place(|| decide(set, &runs, metrics, &settings))?;
    judged(args, set, &runs, &mut report).await?;
    Ok(report)
}

/// The command as it was typed, without the paths of this machine before the program's name.
fn typed() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("groundtone {}", words.join(" "))
}

fn targets(specs: Vec<ArmSpec>, under_test: &UnderTest, state: &str) -> anyhow::Result<Vec<Target>> {
    let mut targets = Vec::new();
    for arm in specs {
        let target = match &arm.url {
            Some(url) => {
                let key = groundtone_config::secret("api_key_env", &arm.api_key_env)?;
                let seconds = Duration::from_secs;
                Target { endpoint: Endpoint::new(url, key, seconds(10), seconds(120), seconds(120))?, state: "remote".to_owned(), arm }
            }
            None if !under_test.models.contains(&arm.model) => {
                let message =
                    format!("the server has no model `{}` for the arm {}; it has {}", arm.model, arm.name, under_test.models.join(", "));
                return Err(hint(message, "name one of its models in --arms, or describe the arm in --arms-file"));
            }
            None => Target { endpoint: under_test.endpoint.clone(), state: state.to_owned(), arm },
        };
        targets.push(target);
    }
    Ok(targets)
}

/// A run that has begun. Answers of a server whose state is not known are used again only within one run: until it is complete, its name is kept in a file.
struct OpenRun {
    state: String,
    file: Option<PathBuf>,
}

impl OpenRun {
    fn of(folder: &Path, args: &Args, set: &CaseSet, arms: &[ArmSpec], under_test: &UnderTest) -> anyhow::Result<Self> {
        let fresh = || uuid::Uuid::new_v4().simple().to_string();
        if let Some(state) = &under_test.state {
            let state = if args.fresh { format!("{state} {}", fresh()) } else { state.clone() };
            return Ok(Self { state, file: None });
        }
        let what = serde_json::json!({"set": set.sha256, "arms": arms, "url": under_test.endpoint.base_url(), "limit": args.limit});
        let file = folder.join(format!("open-{}", &hex::encode(Sha256::digest(what.to_string().as_bytes()))[..16]));
        let state = match std::fs::read_to_string(&file) {
            Ok(state) if !args.fresh && !state.is_empty() => state,
            _ => {
                let state = fresh();
                std::fs::write(&file, &state)?;
                state
            }
        };
        Ok(Self { state, file: Some(file) })
    }

    fn close(self) {
        if let Some(Err(error)) = self.file.map(std::fs::remove_file) {
            tracing::debug!(%error, "the name of the finished run stays");
        }
    }
}

fn progress() -> impl Fn(Progress) + Send + Sync {
    let bar = watched().then(|| {
        let style =
            ProgressStyle::with_template("answers {bar:30} {pos}/{len} {eta} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
        ProgressBar::new(0).with_style(style)
    });
    let said = Mutex::new(0);
    move |progress: Progress| match &bar {
        Some(bar) => {
            bar.set_length(progress.total as u64);
            bar.set_position(progress.done as u64);
            bar.set_message(format!("{} known, {} failed", progress.known, progress.failed));
            if progress.done == progress.total {
                bar.finish_and_clear();
            }
        }
        None => {
            let mut said = said.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            if progress.done == progress.total || progress.done >= *said + SAID_EVERY {
                *said = progress.done;
                say(format!(
                    "{} of {} answers, {} known before, {} failed",
                    progress.done, progress.total, progress.known, progress.failed
                ));
            }
        }
    }
}

async fn judged(args: &Args, set: &CaseSet, runs: &[ArmRun], report: &mut DecisionReport) -> anyhow::Result<()> {
    let (Some(model), Some(url)) = (&args.judge.judge, &args.judge.judge_url) else { return Ok(()) };
    let key = groundtone_config::secret("--judge-key-env", &args.judge.judge_key_env)?;
    let seconds = Duration::from_secs;
    let judge = Judge {
        endpoint: Endpoint::new(url, key, seconds(10), seconds(120), seconds(120))?,
        model: model.clone(),
        parallel: args.parallel.max(1),
    };
    let Some((first, others)) = runs.split_first() else { return Ok(()) };
    for other in others {
        let found = judge_pair(&judge, set, first, other).await;
        if let Some(pair) = report.pairs.iter_mut().find(|pair| pair.a == first.name && pair.b == other.name) {
            pair.judge = Some(found);
        }
    }
    Ok(())
}

fn write(folder: &Path, report: &DecisionReport) -> anyhow::Result<()> {
    let failed = |error: std::io::Error| {
        hint(
            format!("the report cannot be written to {}: {error}", folder.display()),
            "name another folder with --out; the answers are kept",
        )
    };
    std::fs::create_dir_all(folder).map_err(failed)?;
    std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)? + "\n").map_err(failed)?;
    std::fs::write(folder.join("report.html"), report.html()).map_err(failed)
}
