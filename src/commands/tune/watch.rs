use super::plot::plot;
use super::status;
use crate::Global;
use crate::assemble::now;
use crate::output::{json, line, say, watched};
use anyhow::bail;
use groundtone_openai_api::{FineTuningEvent, FineTuningJob};
use groundtone_provider::FineTuningClient;
use indicatif::{ProgressBar, ProgressStyle};
use std::time::Duration;

/// How often the server is asked, and events that are asked for at once.
const INTERVAL: Duration = Duration::from_millis(500);
const PAGE: u32 = 100;
/// Failures of the network in a row after which following ends; the job does not.
const MOST_FAILURES: u32 = 20;
/// Size of the plot in characters.
const PLOT: (usize, usize) = (72, 12);

/// Flags of `groundtone tune watch`.
#[derive(clap::Args)]
pub(super) struct Watch {
    /// Its id: ftjob-...
    job: String,
    /// Seconds between two questions to the server
    #[arg(long)]
    interval: Option<f64>,
}

pub(super) async fn run(global: &Global, client: &FineTuningClient, watch: &Watch) -> anyhow::Result<()> {
    let interval = watch.interval.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    follow(global, client, &watch.job, interval).await
}

/// Tells what happens to a job until it is over. A job that failed or was cancelled is an error.
pub(super) async fn follow(global: &Global, client: &FineTuningClient, id: &str, interval: Option<Duration>) -> anyhow::Result<()> {
    let mut told = Told { seen: None, train: Vec::new(), valid: Vec::new(), bar: bar(global) };
    let mut failures = 0;
    loop {
        // The job first: whatever is said before it is over is in the events that are asked for afterwards.
        let asked = async {
            let job = client.job(id).await?;
            Ok::<_, groundtone_provider::Error>((job, news(client, id, told.seen.as_deref()).await?))
        };
        match asked.await {
            Ok((job, events)) => {
                failures = 0;
                told.tell(global, &job, events)?;
                if job.finished_at.is_some() || matches!(job.status.as_str(), "succeeded" | "failed" | "cancelled") {
                    return told.end(global, &job);
                }
            }
            Err(error) if error.is_passing() && failures < MOST_FAILURES => failures += 1,
            Err(error) => return Err(error.into()),
        }
        tokio::time::sleep(interval.unwrap_or(INTERVAL)).await;
    }
}

/// Events behind the one that was seen last, oldest first.
async fn news(client: &FineTuningClient, id: &str, seen: Option<&str>) -> Result<Vec<FineTuningEvent>, groundtone_provider::Error> {
    let mut events: Vec<FineTuningEvent> = Vec::new();
    loop {
        let after = events.last().map(|event| event.id.clone());
        let page = client.events(id, after.as_deref(), PAGE).await?;
        let is_last = !page.has_more || page.data.is_empty();
        for event in page.data {
            if Some(event.id.as_str()) == seen {
                events.reverse();
                return Ok(events);
            }
            events.push(event);
        }
        if is_last {
            events.reverse();
            return Ok(events);
        }
    }
}

fn bar(global: &Global) -> Option<ProgressBar> {
    let bar = (watched() && !global.json).then(|| ProgressBar::new(0))?;
    let style = ProgressStyle::with_template("{bar:30} step {pos}/{len}  {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.set_style(style);
    Some(bar)
}

/// What was told.
struct Told {
    seen: Option<String>,
    /// Steps and their losses.
    train: Vec<(f64, f64)>,
    valid: Vec<(f64, f64)>,
    bar: Option<ProgressBar>,
}

impl Told {
    fn tell(&mut self, global: &Global, job: &FineTuningJob, events: Vec<FineTuningEvent>) -> anyhow::Result<()> {
        for event in events {
            let number = |name: &str| event.data.get(name).and_then(serde_json::Value::as_f64);
            if let Some(step) = number("step") {
                self.train.extend(number("train_loss").map(|loss| (step, loss)));
                self.valid.extend(number("full_valid_loss").or(number("valid_loss")).map(|loss| (step, loss)));
                if let (Some(bar), Some(total)) = (&self.bar, number("total_steps")) {
                    bar.set_length(total as u64);
                    bar.set_position(step as u64);
                }
            }
            if global.json {
                json(&event)?;
            } else {
                let text = format!("{}  {}", clock(event.created_at), event.message);
                match &self.bar {
                    // With a bar the steps are in it.
                    Some(_) if event.kind == "metrics" => {}
                    Some(bar) => bar.suspend(|| line(text))?,
                    None => line(text)?,
                }
            }
            self.seen = Some(event.id);
        }
        if let Some(bar) = &self.bar {
            let left = job.estimated_finish.map(|finish| format!("  about {} left", duration(finish - now()))).unwrap_or_default();
            let loss = self.train.last().map(|(_, loss)| format!("  loss {loss:.3}")).unwrap_or_default();
            bar.set_message(format!("{}{loss}{left}", status(job)));
        }
        Ok(())
    }

    fn end(self, global: &Global, job: &FineTuningJob) -> anyhow::Result<()> {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if global.json {
            json(job)?;
        } else if let Some(picture) = plot(&self.train, &self.valid, PLOT) {
            line(picture)?;
        }
        match (job.status.as_str(), &job.fine_tuned_model, &job.error) {
            ("succeeded", Some(model), _) => {
                say(format!("succeeded: {model}"));
                Ok(())
            }
            (_, _, Some(error)) => bail!("job {} failed ({}): {}", job.id, error.code, error.message),
            (status, ..) => bail!("job {} is {status}", job.id),
        }
    }
}

/// `14:03:09`, UTC.
fn clock(seconds: i64) -> String {
    let day = seconds.rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", day / 3_600, day / 60 % 60, day % 60)
}

fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}
