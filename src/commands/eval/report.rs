use crate::Global;
use crate::assemble::settings;
use crate::output::{hint, json, line};
use groundtone_config::Config;
use groundtone_evals::decide::DecisionReport;
use std::path::{Path, PathBuf};

/// Flags of `groundtone eval report`.
#[derive(clap::Args)]
pub(crate) struct ReportArgs {
    /// Its id, the beginning of it, or a report.json; all evaluations are listed where not given
    evaluation: Option<String>,
    /// Write the page here
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// Flags of `groundtone eval compare`.
#[derive(clap::Args)]
pub(crate) struct CompareArgs {
    /// The earlier one: an id, the beginning of it, or a report.json
    first: String,
    /// The later one
    second: String,
}

/// Where an evaluation's files are, unless --out said otherwise.
pub(super) fn files_of(config: &Config, id: &str) -> PathBuf {
    config.data.directory.join("evals").join("reports").join(id)
}

fn read(path: &Path) -> anyhow::Result<DecisionReport> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| hint(format!("{}: {error}", path.display()), "`groundtone eval report` lists what there is"))?;
    serde_json::from_str(&text)
        .map_err(|error| hint(format!("{} is no report of an evaluation: {error}", path.display()), "name a report.json"))
}

/// All evaluations below the data directory, oldest first.
fn known(config: &Config) -> anyhow::Result<Vec<String>> {
    let folder = config.data.directory.join("evals").join("reports");
    let mut ids = Vec::new();
    match std::fs::read_dir(&folder) {
        Ok(entries) => {
            for entry in entries {
                ids.push(entry?.file_name().to_string_lossy().into_owned());
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    ids.sort();
    Ok(ids)
}

fn find(config: &Config, name: &str) -> anyhow::Result<DecisionReport> {
    if name.ends_with(".json") {
        return read(Path::new(name));
    }
    let found: Vec<String> = known(config)?.into_iter().filter(|id| id.starts_with(name)).collect();
    match found.as_slice() {
        [id] => read(&files_of(config, id).join("report.json")),
        [] => Err(hint(format!("there is no evaluation `{name}`"), "`groundtone eval report` lists what there is")),
        _ => Err(hint(format!("{} evaluations begin with `{name}`", found.len()), "write more of the id")),
    }
}

/// The evaluation that was made last.
pub(super) fn latest(config: &Config) -> anyhow::Result<Option<DecisionReport>> {
    known(config)?.last().map(|id| read(&files_of(config, id).join("report.json"))).transpose()
}

pub(crate) fn report(global: &Global, args: &ReportArgs) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let Some(name) = &args.evaluation else {
        let ids = known(&config)?;
        if global.json {
            return json(&ids);
        }
        for id in ids {
            let report = read(&files_of(&config, &id).join("report.json"))?;
            line(format!(
                "{id}  {:<20} {:>5} rows  {:<18} {}",
                report.set.name,
                report.set.rows,
                report.verdict.decision.as_str(),
                report.verdict.reason
            ))?;
        }
        return Ok(());
    };
    let report = find(&config, name)?;
    if let Some(path) = &args.html {
        std::fs::write(path, report.html())
            .map_err(|error| hint(format!("{}: {error}", path.display()), "name another file with --html"))?;
    }
    if global.json { json(&report) } else { show(&report) }
}

/// The report in a terminal.
pub(super) fn show(report: &DecisionReport) -> anyhow::Result<()> {
    let set = &report.set;
    line(format!(
        "{}: {} rows ({} independent), {} bootstrap draws, seed {}\n",
        set.name, set.rows, set.clusters, report.resamples, report.seed
    ))?;
    line(format!("{:<16}{:<30}{:>9}{:>10}{:>10}{:>12}", "arm", report.primary, "p50 s", "prompt", "written", "per 1,000"))?;
    let maybe = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    for arm in &report.arms {
        let value = arm.metrics.get(&report.primary).map_or_else(
            || "not measured".to_owned(),
            |value| format!("{:.3} ({:.3} to {:.3})", value.estimate.value, value.estimate.low, value.estimate.high),
        );
        line(format!(
            "{:<16}{value:<30}{:>9.2}{:>10}{:>10}{:>12}",
            arm.name,
            arm.latency.p50_ms / 1e3,
            maybe(arm.tokens.prompt, 0),
            maybe(arm.tokens.completion, 0),
            maybe(arm.cost.map(|cost| cost.per_1000), 4)
        ))?;
    }
    let others: Vec<&String> =
        report.metrics.iter().filter(|(name, info)| !info.detail && **name != report.primary).map(|(name, _)| name).collect();
    for name in others {
        let values: Vec<String> =
            report.arms.iter().filter_map(|arm| Some(format!("{} {:.3}", arm.name, arm.metrics.get(name)?.estimate.value))).collect();
        if !values.is_empty() {
            line(format!("  {name:<22}{}", values.join("  ")))?;
        }
    }
    line("")?;
    for pair in &report.pairs {
        if let Some(difference) = pair.metrics.get(&report.primary) {
            let estimate = difference.estimate;
            let p = pair.test.p_corrected.unwrap_or(pair.test.p);
            line(format!(
                "{} - {}: {:+.3} ({:+.3} to {:+.3}), {} p = {p:.4}",
                pair.a, pair.b, estimate.value, estimate.low, estimate.high, pair.test.name
            ))?;
        }
    }
    line(format!("\n{}: {}", report.verdict.decision.as_str(), report.verdict.reason))?;
    report.verdict.notes.iter().try_for_each(line)
}

pub(crate) fn compare(global: &Global, args: &CompareArgs) -> anyhow::Result<()> {
    let config = settings(global, &[])?;
    let (first, second) = (find(&config, &args.first)?, find(&config, &args.second)?);
    let same_set = first.set.sha256 == second.set.sha256 && first.set.rows == second.set.rows;
    let mut changes = Vec::new();
    for after in &second.arms {
        let Some(before) = first.arm(&after.name) else { continue };
        for (name, value) in after.metrics.iter().filter(|(name, _)| !second.metrics.get(*name).is_some_and(|info| info.detail)) {
            if let Some(old) = before.metrics.get(name) {
                let apart = old.estimate.high < value.estimate.low || value.estimate.high < old.estimate.low;
                changes.push((after.name.clone(), name.clone(), old.estimate, value.estimate, apart));
            }
        }
    }
    if global.json {
        let changes: Vec<serde_json::Value> = changes
            .iter()
            .map(|(arm, metric, before, after, apart)| serde_json::json!({"arm": arm, "metric": metric, "before": before, "after": after, "intervals_apart": apart}))
            .collect();
        let whole = serde_json::json!({"first": first.id, "second": second.id, "same_set": same_set, "changes": changes, "before": first.verdict, "after": second.verdict});
        return json(&whole);
    }
    if !same_set {
        line(format!(
            "the sets differ ({}, {} rows; {}, {} rows): what changed may be the questions\n",
            first.set.name, first.set.rows, second.set.name, second.set.rows
        ))?;
    }
    for (arm, metric, before, after, apart) in changes {
        let mark = if apart { "  intervals apart" } else { "" };
        line(format!("{arm:<16}{metric:<24}{:.3} -> {:.3}  ({:+.3}){mark}", before.value, after.value, after.value - before.value))?;
    }
    line(format!("\nbefore: {}\nafter:  {}", first.verdict.reason, second.verdict.reason))
}
