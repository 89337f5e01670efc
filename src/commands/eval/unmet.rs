use crate::Global;
use crate::assemble::{embedder, settings};
use crate::commands::models::pull;
use crate::output::{hint, json, line, say};
use groundtone_config::Engine;
use groundtone_evals::{Remedy, Subject, read_unmet, subjects};
use groundtone_provider::{Batcher, EmbedFor, Pace};
use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Flags of `groundtone eval unmet`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Questions and what came of them: JSONL of {"question", "answer", "abstained", "thumb" or "rating", "correction"}
    #[arg(long, value_name = "FILE", required = true)]
    log: PathBuf,
    /// Take these subjects, by their numbers in the list
    #[arg(long, value_delimiter = ',', requires_all = ["make", "out"])]
    take: Vec<usize>,
    /// What to make of them
    #[arg(long = "as", value_enum)]
    make: Option<Make>,
    /// Where to: a file for cases and rows, which are added at its end; a folder for documents
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

/// What becomes of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Make {
    /// Rows of a held-out set
    Cases,
    /// Training examples, of questions with a correction
    Rows,
    /// Drafts of documents, for a person to write
    Documents,
}

pub(crate) async fn run(global: &Global, args: Args) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let asked = read_unmet(&args.log)
        .map_err(|error| hint(error, "each line is a JSON object with `question`, and `abstained`, `thumb` or `correction`"))?;
    if config.embedder.kind == Engine::Local {
        pull(&config, std::slice::from_ref(&config.embedder.model)).await?;
    }
    let questions: Vec<String> = asked.iter().map(|unmet| unmet.question.clone()).collect();
    let batcher = Batcher::new(embedder(&config).await?, Pace::default());
    let mut vectors = Vec::with_capacity(questions.len());
    for batch in questions.chunks(256) {
        vectors.extend(batcher.embedder().embed(batch, EmbedFor::Query).await?);
    }
    let found = subjects(&asked, &vectors);
    let (Some(make), Some(out)) = (args.make, &args.out) else {
        return if global.json { json(&found) } else { show(&found) };
    };
    let numbers: BTreeSet<usize> = args.take.iter().copied().collect();
    if let Some(wrong) = numbers.iter().find(|number| !(1..=found.len()).contains(*number)) {
        return Err(hint(format!("there is no subject {wrong}; the list has {}", found.len()), "leave --take out to see the list"));
    }
    let chosen: Vec<(usize, &Subject)> = numbers.iter().map(|number| (*number, &found[number - 1])).collect();
    let made = write(make, out, &chosen)?;
    if global.json {
        return json(&serde_json::json!({"made": made, "out": out}));
    }
    say(format!("{made} written to {}", out.display()));
    Ok(())
}

fn show(found: &[Subject]) -> anyhow::Result<()> {
    for (at, subject) in found.iter().enumerate() {
        let remedy = match subject.remedy {
            Remedy::Document => "a document is missing",
            Remedy::TrainingRow => "a training row",
            Remedy::EvaluationCase => "an evaluation case",
        };
        line(format!(
            "{:>3}  {:>4} asked, {:>4} unanswered, {:>4} disliked  {remedy:<22}{}",
            at + 1,
            subject.count,
            subject.abstained,
            subject.disliked,
            subject.question
        ))?;
    }
    Ok(())
}

/// Writes what was asked for, and says how many.
fn write(make: Make, out: &Path, chosen: &[(usize, &Subject)]) -> anyhow::Result<usize> {
    let failed = |error: std::io::Error| hint(format!("{}: {error}", out.display()), "name another place with --out");
    if make == Make::Documents {
        std::fs::create_dir_all(out).map_err(failed)?;
        for (number, subject) in chosen {
            let path = out.join(format!("unmet-{number}.md"));
            if path.exists() {
                return Err(hint(
                    format!("{} is there already", path.display()),
                    "somebody may have written it; name another folder with --out",
                ));
            }
            std::fs::write(path, subject.document()).map_err(failed)?;
        }
        return Ok(chosen.len());
    }
    let rows: Vec<serde_json::Value> = match make {
        Make::Cases => chosen.iter().map(|(_, subject)| subject.case(&uuid::Uuid::now_v7().simple().to_string())).collect(),
        _ => chosen.iter().flat_map(|(_, subject)| subject.rows()).collect(),
    };
    if rows.is_empty() {
        return Err(hint("none of these questions has a correction to learn from", "take them as cases, or correct an answer first"));
    }
    let text: String = rows.iter().map(|row| format!("{row}\n")).collect();
    let mut file = std::fs::OpenOptions::new().append(true).create(true).open(out).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(rows.len())
}
