//! Whether a test set leaks into training data.

use crate::output::hint;
use groundtone_datasets::{DatasetPaths, Entry, near_duplicate_groups, read_entries};
use groundtone_evals::{Case, CaseSet};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Leaks that an error names.
const NAMED: usize = 5;

/// A row of the test set that the model was trained on, or nearly.
#[derive(Debug, Clone)]
pub(super) struct Leak {
    /// Its place in the set.
    pub(super) at: usize,
    /// The training question.
    pub(super) trained: String,
    /// Where that stands.
    pub(super) file: PathBuf,
}

/// The questions of a training file: from the rows file beside it where `dataset build` wrote it, since its prompts hold sources as well; else as a set is read.
fn questions(file: &Path) -> anyhow::Result<Vec<String>> {
    let rows = DatasetPaths::of(file).rows;
    if !rows.is_file() {
        return Ok(CaseSet::read(file)?.cases.into_iter().map(|case| case.question).collect());
    }
    let mut found = Vec::new();
    for entry in read_entries(&rows)? {
        if let Entry::Row(row) = entry? {
            found.push(row.question);
        }
    }
    Ok(found)
}

/// Rows whose question stands in a training file, word for word or as a near duplicate.
pub(super) fn leaks(cases: &[Case], training: &[PathBuf]) -> anyhow::Result<Vec<Leak>> {
    let mut texts: Vec<String> = cases.iter().map(|case| case.question.clone()).collect();
    let mut files: Vec<&PathBuf> = Vec::new();
    for file in training {
        for question in questions(file)? {
            texts.push(question);
            files.push(file);
        }
    }
    let groups = near_duplicate_groups(&texts);
    let mut trained: HashMap<usize, usize> = HashMap::new();
    for (at, group) in groups.iter().enumerate().skip(cases.len()) {
        trained.entry(*group).or_insert(at);
    }
    let leak = |at: usize| {
        let other = *trained.get(&groups[at])?;
        Some(Leak { at, trained: texts[other].clone(), file: files[other - cases.len()].clone() })
    };
    Ok((0..cases.len()).filter_map(leak).collect())
}

/// Refuses a set that leaks, or takes the rows out where the operator said so. Gives how many were taken out.
pub(super) fn keep_apart(set: &mut CaseSet, training: &[PathBuf], drop: bool) -> anyhow::Result<usize> {
    let found = leaks(&set.cases, training)?;
    if found.is_empty() {
        return Ok(0);
    }
    if !drop {
        let named: Vec<String> = found
            .iter()
            .take(NAMED)
            .map(|leak| {
                format!(
                    "  row {} `{}` is in {} as `{}`",
                    set.cases[leak.at].id,
                    set.cases[leak.at].question,
                    leak.file.display(),
                    leak.trained
                )
            })
            .collect();
        let message = format!(
            "{} of {} rows of {} are in the training data, so they would measure memory:\n{}",
            found.len(),
            set.cases.len(),
            set.name,
            named.join("\n")
        );
        return Err(hint(message, "split before you build (`groundtone dataset split`), or leave these rows out with --drop-leaked"));
    }
    let leaked: std::collections::HashSet<usize> = found.iter().map(|leak| leak.at).collect();
    let mut at = 0;
    set.cases.retain(|_| {
        at += 1;
        !leaked.contains(&(at - 1))
    });
    if set.cases.is_empty() {
        return Err(hint(
            format!("every row of {} is in the training data", set.name),
            "hold out rows before training: `groundtone dataset split`",
        ));
    }
    Ok(found.len())
}
