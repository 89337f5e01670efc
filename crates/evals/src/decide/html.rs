//! The report as one HTML file: no script, nothing fetched, readable on a phone and on paper.

use super::report::{ArmReport, DecisionReport, Disagreement, PairReport};
use super::verdict::{Decision, Role};
use crate::stats::Estimate;
use std::fmt::Write;

const CSS: &str = include_str!("report.css");
/// Width of a plot in its own units: about a phone's pixels, so that its letters stay letters there.
const WIDTH: f64 = 430.0;
/// Where an arm's name ends and the scale begins, and where it ends.
const SCALE: (f64, f64) = (130.0, 330.0);
/// Characters of an arm's name that fit before the scale.
const NAME: usize = 17;
/// Height of an arm's line.
const LINE: f64 = 26.0;

/// Text that is no markup.
fn plain(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// Text with `names` between backticks as code.
fn sentence(text: &str) -> String {
    let mut out = String::new();
    for (at, piece) in plain(text).split('`').enumerate() {
        if at > 0 {
            out.push_str(if at % 2 == 1 { "<code>" } else { "</code>" });
        }
        out.push_str(piece);
    }
    if text.matches('`').count() % 2 == 1 { out + "</code>" } else { out }
}

fn percent(value: f64) -> String {
    format!("{:.1}", value * 100.0)
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

impl Decision {
    /// As a reader sees it.
    fn headline(self) -> &'static str {
        match self {
            Self::DoNotFineTune => "Do not fine-tune.",
            Self::KeepRag => "Keep RAG.",
            Self::KeepPrompt => "Keep the prompt.",
            Self::UseTuned => "Use the tuned model.",
            Self::Combine => "Combine: tuned model and retrieval.",
            Self::NeedMoreRows => "More rows are needed.",
            Self::NothingToCompare => "There is nothing to compare.",
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::UseTuned | Self::Combine => "wins",
            Self::NeedMoreRows | Self::NothingToCompare => "open",
            Self::DoNotFineTune | Self::KeepRag | Self::KeepPrompt => "stays",
        }
    }
}

impl DecisionReport {
    /// The whole page.
    pub fn html(&self) -> String {
        let mut out = String::with_capacity(64 << 10);
        let title = format!("Evaluation of {}", self.set.name);
        let head = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>\n{CSS}</style>\n</head>\n<body>\n",
            plain(&title)
        );
        out.push_str(&head);
        let sections =
            [self.top(&title), self.grid(), self.plots(), self.money(), self.against(), self.rows(), self.details(), self.method()];
        sections.iter().for_each(|section| out.push_str(section));
        out.push_str("</body>\n</html>\n");
        out
    }

    fn top(&self, title: &str) -> String {
        let mut out = String::new();
        let headline = match (self.verdict.decision, self.verdict.rows_needed) {
            (Decision::NeedMoreRows, Some(rows)) => format!("About {rows} rows are needed; there are {}.", self.set.rows),
            (decision, _) => decision.headline().to_owned(),
        };
        let when = chrono::DateTime::from_timestamp(self.created_at, 0).map(|at| at.format("%Y-%m-%d").to_string()).unwrap_or_default();
        let set = &self.set;
        let lines = format!(
            "<h1>{}</h1>\n<p class=\"soft\">{} rows, {} of them independent · {} arms · {when} · <code>{}</code></p>\n<div class=\"verdict {}\"><strong>{}</strong>{}</div>\n",
            plain(title),
            set.rows,
            set.clusters,
            self.arms.len(),
            plain(&self.id),
            self.verdict.decision.class(),
            plain(&headline),
            sentence(&self.verdict.reason)
        );
        out.push_str(&lines);
        self.verdict.notes.iter().for_each(|note| out.push_str(&format!("<p>{}</p>\n", sentence(note))));
        out
    }

    /// Not tuned and tuned, without and with retrieval.
    fn grid(&self) -> String {
        let cell = |title: &str, of: &dyn Fn(Role) -> bool| {
            let mut out = format!("<div class=\"cell\"><h3>{title}</h3>");
            let mut any = false;
            for arm in self.arms.iter().filter(|arm| of(arm.role)) {
                any = true;
                let value = arm.metrics.get(&self.primary).map_or_else(|| "not measured".to_owned(), |value| interval(&value.estimate));
                out.push_str(&format!("<div>{}<br><b>{value}</b></div>", plain(&arm.name)));
            }
            if !any {
                out.push_str("<div class=\"soft\">no arm</div>");
            }
            out + "</div>"
        };
        let cells = [
            cell("Prompt alone", &|role| !role.is_tuned() && !role.retrieves()),
            cell("Prompt and retrieval", &|role| !role.is_tuned() && role.retrieves()),
            cell("Tuned", &|role| role.is_tuned() && !role.retrieves()),
            cell("Tuned and retrieval", &|role| role.is_tuned() && role.retrieves()),
        ];
        format!(
            "<h2>The four ways, by {}</h2>\n<p class=\"soft\">In per cent, with 95 % intervals. {}</p>\n<div class=\"grid\">{}</div>\n",
            plain(&self.primary),
            self.meaning(&self.primary),
            cells.concat()
        )
    }

    fn meaning(&self, metric: &str) -> String {
        self.metrics.get(metric).map(|info| format!("100 means: {}.", plain(&info.meaning))).unwrap_or_default()
    }

    /// One plot for each metric that is no detail, the deciding one first.
    fn plots(&self) -> String {
        let mut names: Vec<&String> = self.metrics.iter().filter(|(_, info)| !info.detail).map(|(name, _)| name).collect();
        names.sort_by_key(|name| (**name != self.primary, (*name).clone()));
        let mut out = "<h2>Every metric</h2>\n".to_owned();
        for name in names {
            let arms: Vec<(&ArmReport, Estimate, usize)> =
                self.arms.iter().filter_map(|arm| arm.metrics.get(name).map(|value| (arm, value.estimate, value.of))).collect();
            if !arms.is_empty() {
                let caption = format!("<figcaption><b>{}</b>. {}</figcaption>", plain(name), self.meaning(name));
                out.push_str(&format!("<figure>{caption}{}</figure>\n", plot(&arms)));
            }
        }
        out
    }

    fn money(&self) -> String {
        let mut out = "<h2>Time, tokens, cost</h2>\n<div class=\"scroll\"><table><thead><tr><th>arm</th><th class=\"n\">p50 s</th><th class=\"n\">p95 s</th><th class=\"n\">first text s</th><th class=\"n\">prompt tokens</th><th class=\"n\">cached</th><th class=\"n\">written</th><th class=\"n\">cost of 1,000</th></tr></thead><tbody>\n".to_owned();
        let maybe = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.0}"));
        for arm in &self.arms {
            let seconds = |ms: f64| format!("{:.2}", ms / 1e3);
            let cost = arm.cost.map_or_else(|| "–".to_owned(), |cost| number(cost.per_1000));
            let cells = [
                seconds(arm.latency.p50_ms),
                seconds(arm.latency.p95_ms),
                seconds(arm.latency.first_token_p50_ms),
                maybe(arm.tokens.prompt),
                maybe(arm.tokens.cached),
                maybe(arm.tokens.completion),
                cost,
            ];
            let cells: String = cells.iter().map(|cell| format!("<td class=\"n\">{cell}</td>")).collect();
            out.push_str(&format!("<tr><td>{}</td>{cells}</tr>\n", plain(&arm.name)));
        }
        out.push_str(&format!("</tbody></table></div>\n<p class=\"soft\">{} answers at the same time. Cost is in the money of the price table; – where there is no price.</p>\n", self.parallel));
        for point in &self.break_even {
            let (arm, base) = (plain(&point.arm), plain(&point.baseline));
            let text = match point.answers {
                Some(answers) => format!(
                    "<p>Break-even: <code>{arm}</code> saves {} on 1,000 answers against <code>{base}</code>; the {} paid once are earned after {answers:.0} answers.</p>\n",
                    number(point.saving_per_1000),
                    number(point.fixed)
                ),
                None => format!(
                    "<p>Break-even: never. <code>{arm}</code> costs {} more for 1,000 answers than <code>{base}</code>.</p>\n",
                    number(-point.saving_per_1000)
                ),
            };
            out.push_str(&text);
        }
        out
    }

    fn against(&self) -> String {
        let mut out = format!(
            "<h2>Arm against arm, by {}</h2>\n<div class=\"scroll\"><table><thead><tr><th>arms</th><th class=\"n\">difference, points</th><th class=\"n\">only one right</th><th class=\"n\">p</th><th>clearly worse in</th></tr></thead><tbody>\n",
            plain(&self.primary)
        );
        for pair in &self.pairs {
            let PairReport { a, b, metrics, test, worse_in, judge } = pair;
            let difference = metrics.get(&self.primary).map_or_else(|| "–".to_owned(), |difference| signed(&difference.estimate));
            let p = test.p_corrected.map_or_else(|| format!("{:.3}", test.p), |p| format!("{p:.3}*"));
            let judge = judge.map(|judge| {
                let agreement = judge.agreement().map_or_else(|| "–".to_owned(), |share| format!("{:.0} %", share * 100.0));
                format!(
                    "<br><small>judge: {} to {}, {} ties; both orders agree in {agreement}, {} unreadable</small>",
                    judge.first, judge.second, judge.tie, judge.failed
                )
            });
            out.push_str(&format!(
                "<tr><td>{} − {}{}</td><td class=\"n\">{difference}</td><td class=\"n\">{} : {}</td><td class=\"n\">{p}</td><td>{}</td></tr>\n",
                plain(a),
                plain(b),
                judge.unwrap_or_default(),
                test.discordant.first_only,
                test.discordant.second_only,
                plain(&worse_in.join(", "))
            ));
        }
        out.push_str("</tbody></table></div>\n<p class=\"soft\">* corrected by Holm's method for the arms that are held against the best untuned one. Exact McNemar test where every row is independent and right or wrong, else Wilcoxon's signed rank test over documents.</p>\n");
        out
    }

    fn rows(&self) -> String {
        if self.disagreements.is_empty() {
            return "<h2>Where the arms differ</h2>\n<p>On no row.</p>\n".to_owned();
        }
        let mut out = format!(
            "<h2>Where the arms differ</h2>\n<p class=\"soft\">The {} rows on which they differ most in {}.</p>\n",
            self.disagreements.len(),
            plain(&self.primary)
        );
        let names: Vec<&String> = self.arms.iter().map(|arm| &arm.name).collect();
        self.disagreements.iter().for_each(|row| out.push_str(&disagreement(row, &names)));
        out
    }

    fn details(&self) -> String {
        let names: Vec<&String> = self
            .metrics
            .iter()
            .filter(|(name, info)| info.detail && self.arms.iter().any(|arm| arm.metrics.contains_key(*name)))
            .map(|(name, _)| name)
            .collect();
        let mut out = "<h2>May be released</h2>\n<div class=\"scroll\"><table><tbody>\n".to_owned();
        for passing in &self.verdict.passing {
            let (class, word) = if passing.passed { ("ok", "yes") } else { ("no", "no") };
            out.push_str(&format!(
                "<tr><td>{}</td><td class=\"{class}\">{word}</td><td>{}</td></tr>\n",
                plain(&passing.arm),
                sentence(&passing.reason)
            ));
        }
        out.push_str("</tbody></table></div>\n");
        if names.is_empty() {
            return out;
        }
        out.push_str("<h2>Classes and rules</h2>\n<div class=\"scroll\"><table><thead><tr><th></th>");
        self.arms.iter().for_each(|arm| out.push_str(&format!("<th class=\"n\">{}</th>", plain(&arm.name))));
        out.push_str("</tr></thead><tbody>\n");
        for name in names {
            out.push_str(&format!("<tr><td>{}</td>", plain(name)));
            for arm in &self.arms {
                let value = arm.metrics.get(name).map_or_else(|| "–".to_owned(), |value| percent(value.estimate.value));
                out.push_str(&format!("<td class=\"n\">{value}</td>"));
            }
            out.push_str("</tr>\n");
        }
        out + "</tbody></table></div>\n"
    }

    fn method(&self) -> String {
        let effect = self.minimum_detectable_effect.map_or_else(|| "So few rows show no difference reliably.".to_owned(), |effect| format!("So many independent rows show a difference of {:.1} points with 80 % power, where arms disagree on a fifth of the rows.", effect * 100.0));
        let target = self.target.map(|target| format!(" Good enough is {} %.", percent(target))).unwrap_or_default();
        let errors: Vec<String> =
            self.arms.iter().filter(|arm| arm.errors > 0).map(|arm| format!("{} failed on {} rows", arm.name, arm.errors)).collect();
        let errors =
            if errors.is_empty() { String::new() } else { format!(" {}; a failed answer counts as wrong.", plain(&errors.join(", "))) };
        format!(
            "<h2>How</h2>\n<p>{effect} Up to {} points worse counts as the same.{target}{errors} Intervals are 95 %, from {} bootstrap draws over documents (seed {}); rows about one document are drawn together.</p>\n<p class=\"soft\">Groundtone {} · set SHA-256 <code>{}</code><br><code>{}</code></p>\n",
            self.margin * 100.0,
            self.resamples,
            self.seed,
            plain(&self.groundtone),
            plain(&self.set.sha256),
            plain(&self.command)
        )
    }
}

fn interval(estimate: &Estimate) -> String {
    format!("{} ({}–{})", percent(estimate.value), percent(estimate.low), percent(estimate.high))
}

fn signed(estimate: &Estimate) -> String {
    format!("{:+.1} ({:+.1} to {:+.1})", estimate.value * 100.0, estimate.low * 100.0, estimate.high * 100.0)
}

fn disagreement(row: &Disagreement, arms: &[&String]) -> String {
    let mut out = format!(
        "<div class=\"row\"><b>{}</b> <span class=\"soft\">{}</span><dl><dt>reference</dt><dd>{}</dd>",
        plain(&row.question),
        plain(&row.id),
        plain(&row.reference)
    );
    for name in arms {
        let Some((score, text)) = row.answers.get(*name) else { continue };
        let (class, shown) = match score {
            Some(score) if *score >= 0.5 => ("ok", format!(" {}", percent(*score))),
            Some(score) => ("no", format!(" {}", percent(*score))),
            None => ("soft", String::new()),
        };
        out.push_str(&format!("<dt>{}<span class=\"{class}\">{shown}</span></dt><dd>{}</dd>", plain(name), plain(text)));
    }
    out + "</dl></div>\n"
}

/// Values and intervals on a scale of per cent, an arm a line.
fn plot(arms: &[(&ArmReport, Estimate, usize)]) -> String {
    let height = LINE * arms.len() as f64 + 24.0;
    let x = |value: f64| SCALE.0 + value.clamp(0.0, 1.0) * (SCALE.1 - SCALE.0);
    let mut out = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">");
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a string cannot fail.
        let _ = out.write_fmt(text);
    };
    for tick in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let at = x(tick);
        put(format_args!("<line class=\"axis\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{:.1}\"/>", height - 20.0));
        put(format_args!(
            "<text class=\"label\" x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{:.0}</text>",
            height - 6.0,
            tick * 100.0
        ));
    }
    for (line, (arm, estimate, of)) in arms.iter().enumerate() {
        let y = LINE * line as f64 + LINE / 2.0;
        let class = if arm.role.is_tuned() { "tuned" } else { "plain" };
        let name: String =
            if arm.name.chars().count() > NAME { arm.name.chars().take(NAME - 1).chain(['…']).collect() } else { arm.name.clone() };
        put(format_args!("<text x=\"0\" y=\"{:.1}\">{}</text>", y + 4.5, plain(&name)));
        put(format_args!(
            "<line class=\"{class}\" stroke-width=\"2.5\" x1=\"{:.1}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>",
            x(estimate.low),
            x(estimate.high)
        ));
        put(format_args!("<circle class=\"{class}\" cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\"/>", x(estimate.value)));
        put(format_args!(
            "<text x=\"{:.1}\" y=\"{:.1}\">{} <tspan class=\"label\">of {of}</tspan></text>",
            SCALE.1 + 14.0,
            y + 4.5,
            percent(estimate.value)
        ));
    }
    out + "</svg>"
}
