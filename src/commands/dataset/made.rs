//! Examples that a command makes itself, beside the rows: written by a teacher model, or taken from stored answers.

use super::build::{Args, bar, explain};
use super::site::Site;
use crate::assemble::{chat_model, redactor};
use crate::output::{hint, say};
use groundtone_catalog::{Thumb, TraceFilter};
use groundtone_config::Config;
use groundtone_datasets::teacher::{Teacher, TeacherReport, TeacherSettings};
use groundtone_datasets::{Builder, Error, TraceExamples, TracesReport};
use groundtone_provider::{ChatModel, Endpoint, OpenAiChat};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Lets the teacher write, beside the rows.
pub(super) async fn write_examples(config: &Config, site: &Site, args: &Args, examples: &Path) -> anyhow::Result<TeacherReport> {
    let Site::Own(library) = site else { anyhow::bail!("a teacher is asked by the process that has the documents open") };
    let flags = &args.teacher;
    let model: Arc<dyn ChatModel> = match (&flags.teacher_url, &flags.teacher_model) {
        (Some(url), Some(name)) => {
            let seconds = Duration::from_secs;
            let key = groundtone_config::secret("--teacher-key-env", &flags.teacher_key_env)?;
            let chat = &config.chat;
            let endpoint = Endpoint::new(
                url,
                key,
                seconds(chat.connect_timeout_seconds),
                seconds(chat.first_token_timeout_seconds),
                seconds(chat.idle_timeout_seconds),
            )?;
            Arc::new(OpenAiChat::new(endpoint, name.clone(), flags.teacher_context_tokens))
        }
        _ => chat_model(config).await?,
    };
    let collection = &config.assistant.collection;
    let teacher = Teacher {
        model,
        retriever: library.retriever(config).await?,
        catalog: library.catalog.clone(),
        tenant: args.tenant.clone(),
        // One generation for all questions, whatever the alias does meanwhile.
        collection: library.index.resolve(collection).await?.unwrap_or_else(|| collection.clone()),
    };
    let settings = TeacherSettings {
        out: examples.to_owned(),
        questions: usize::from(flags.questions),
        chunks: flags.chunks,
        concurrency: usize::from(args.concurrency),
        seed: args.seed,
        system: config.assistant.system.clone(),
        overwrite: args.overwrite,
    };
    let bar = bar(0, "{bar:30} {pos} of {len} chunks eta {eta}");
    let result = teacher
        .run(&settings, &|done, all| {
            bar.set_length(all);
            bar.set_position(done);
        })
        .await;
    bar.finish_and_clear();
    result.map_err(explain)
}

/// Writes the answers that people judged. A build that was cut off goes on with those that it began with.
pub(super) async fn judged_answers(config: &Config, site: &Site, args: &Args, examples: &Path) -> anyhow::Result<Option<TracesReport>> {
    let out = args.out.as_deref().unwrap_or(examples);
    if !args.overwrite {
        if examples.exists() && Builder::is_unfinished(out) {
            say(format!("going on with the answers in {}", examples.display()));
            return Ok(None);
        }
        if let Some(path) = [out, examples].into_iter().find(|path| path.exists()) {
            return Err(explain(Error::Exists { path: path.to_owned() }));
        }
    }
    let (book, redactor) = (site.book(config, &args.tenant).await?, redactor(config)?);
    let mut judged = TraceExamples::default();
    for thumb in [Thumb::Up, Thumb::Down] {
        let filter = TraceFilter { thumb: Some(thumb), ..TraceFilter::default() };
        book.each(filter, usize::MAX, &redactor, |trace| judged.push(trace, |text| redactor.marks(text))).await?;
    }
    if judged.is_empty() {
        return Err(hint(
            "nobody has judged a stored answer yet",
            "send thumbs and corrections to /v1/groundtone/feedback, or name a file of examples",
        ));
    }
    judged.write(examples).map(Some).map_err(explain)
}
