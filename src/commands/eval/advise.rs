use super::report::latest;
use crate::Global;
use crate::assemble::{now, settings};
use crate::output::{hint, json, line};
use groundtone_config::Config;
use groundtone_datasets::near_duplicate_groups;
use groundtone_evals::metrics::{Answered, Metric, Voice, VoiceRules};
use groundtone_evals::{Advice, Case, CaseSet, Logged, Material, Points, Reply};
use groundtone_prompt::{CountTokens, OpenAiTokens};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Files below --documents that are looked at.
const MOST_FILES: usize = 1_000_000;

/// Flags of `groundtone eval advise`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The prompt in use
    #[arg(long, value_name = "FILE")]
    prompt: Option<PathBuf>,
    /// What was asked and answered: JSONL of {"question", "answer", "created_at"?} or {"messages"}
    #[arg(long, value_name = "FILE")]
    log: Vec<PathBuf>,
    /// Examples that could be trained on
    #[arg(long, value_name = "FILE")]
    examples: Vec<PathBuf>,
    /// The documents that answers rest on: when they changed last is read from the files
    #[arg(long, value_name = "DIR")]
    documents: Vec<PathBuf>,
    /// Rules of the voice, for the answers of the log
    #[arg(long, value_name = "FILE")]
    voice: Option<PathBuf>,
    /// The model whose tokens are counted
    #[arg(long, default_value = "gpt-4o-mini")]
    model: String,
}

pub(crate) fn run(global: &Global, args: &Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let advice = material(args, &config)?.advise();
    if global.json { json(&advice) } else { show(&advice) }
}

fn read(files: &[PathBuf]) -> anyhow::Result<Vec<Case>> {
    let mut cases = Vec::new();
    for file in files {
        cases.extend(
            CaseSet::read(file)
                .map_err(|error| hint(error, "each line is a JSON object with `question` and `answer`, or OpenAI chat messages"))?
                .cases,
        );
    }
    Ok(cases)
}

fn answered(case: Case) -> Option<(String, String)> {
    Some((case.question, case.answer.or(case.label)?))
}

fn material(args: &Args, config: &Config) -> anyhow::Result<Material> {
    let prompt = match &args.prompt {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .map_err(|error| hint(format!("{}: {error}", path.display()), "name the text of the prompt"))?;
            let tokens = OpenAiTokens::for_model(&args.model).count(&text);
            Some((text, tokens))
        }
    };
    let logged = |case: Case| {
        let at = case.at;
        answered(case).map(|(question, answer)| Logged { question, answer, at })
    };
    let log: Vec<Logged> = read(&args.log)?.into_iter().filter_map(logged).collect();
    let examples: Vec<(String, String)> = read(&args.examples)?.into_iter().filter_map(answered).collect();
    let questions: Vec<&str> = examples.iter().map(|(question, _)| question.as_str()).collect();
    let groups = near_duplicate_groups(&questions);
    let off_voice =
        args.voice.as_ref().map(|path| VoiceRules::read(path)).transpose()?.map(|rules| off_voice(&Voice { rules, only: None }, &log));
    let mut documents = Vec::new();
    args.documents.iter().try_for_each(|folder| changed(folder, &mut documents))?;
    let baseline = latest(config)?.and_then(|report| {
        let name = report.verdict.baseline.clone()?;
        let value = report.arm(&name)?.metrics.get(&report.primary)?.estimate;
        Some((name, report.primary.clone(), value.value, report.target.map(|target| value.low >= target)))
    });
    Ok(Material { prompt, log, off_voice, examples, groups, documents, now: now(), baseline })
}

/// How many answers break a rule.
fn off_voice(voice: &Voice, log: &[Logged]) -> usize {
    let case = Case::default();
    let broken = |row: &&Logged| {
        let reply = Reply { text: row.answer.clone(), ..Reply::default() };
        let parts = voice.score(&Answered { case: &case, reply: &reply, evidence: &[], abstained: false });
        parts.iter().any(|part| part.gained < part.possible)
    };
    log.iter().filter(broken).count()
}

/// When each file below a folder changed last.
fn changed(path: &Path, found: &mut Vec<i64>) -> anyhow::Result<()> {
    let failed = |error: std::io::Error| hint(format!("{}: {error}", path.display()), "name a folder of documents");
    let metadata = std::fs::symlink_metadata(path).map_err(failed)?;
    if metadata.is_dir() {
        for entry in std::fs::read_dir(path).map_err(failed)? {
            changed(&entry.map_err(failed)?.path(), found)?;
        }
    } else if metadata.is_file() && found.len() < MOST_FILES {
        let modified = metadata.modified().map_err(failed)?.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        found.push(i64::try_from(modified).unwrap_or(i64::MAX));
    }
    Ok(())
}

fn show(advice: &Advice) -> anyhow::Result<()> {
    for (points, title) in
        [(Points::ToTuning, "for fine-tuning"), (Points::ToRetrieval, "for retrieval"), (Points::AgainstTuning, "against fine-tuning")]
    {
        line(title)?;
        for check in advice.checks.iter().filter(|check| check.points == points) {
            let holds = match check.holds {
                Some(true) => "yes",
                Some(false) => "no",
                None => "?",
            };
            line(format!("  {holds:<4}{:<52}{}", check.check, check.measured))?;
        }
    }
    line(format!("\n{}: {}", advice.advice, advice.reason))
}
