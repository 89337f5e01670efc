//! The report as one page: no script, no other file, plots as inline SVG; it reads on a phone and on paper.

use super::{Conflict, Distribution, Duplicates, Lines, PartStats, Stats};
use std::collections::BTreeMap;
use std::fmt::Write;

const STYLE: &str = include_str!("report.css");
/// Bars of a plot of labels or languages.
const MOST_BARS: usize = 30;
/// Characters of a name beside its bar.
const MOST_NAME: usize = 20;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Digits in groups of three.
fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

fn lines(found: &[u64], all: u64) -> String {
    let mut text = found.iter().map(u64::to_string).collect::<Vec<_>>().join(", ");
    if all > found.len() as u64 {
        text.push_str(", …");
    }
    text
}

struct Page(String);

impl Page {
    fn add(&mut self, text: &str) {
        self.0.push_str(text);
    }

    fn heading(&mut self, title: &str, says: &str) {
        self.add(&format!("<h3>{}</h3>\n", escaped(title)));
        if !says.is_empty() {
            self.add(&format!("<p class=\"says\">{}</p>\n", escaped(says)));
        }
    }

    fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            return;
        }
        self.add("<div class=\"wide\"><table><thead><tr>");
        head.iter().for_each(|cell| self.add(&format!("<th>{}</th>", escaped(cell))));
        self.add("</tr></thead><tbody>\n");
        for row in rows {
            self.add("<tr>");
            row.iter().for_each(|cell| self.add(&format!("<td>{}</td>", escaped(cell))));
            self.add("</tr>\n");
        }
        self.add("</tbody></table></div>\n");
    }

    /// A histogram with its percentiles below.
    fn histogram(&mut self, title: &str, of: &Distribution) {
        let most = of.bars.iter().max().copied().unwrap_or_default().max(1) as f64;
        let (width, height) = (480.0, 120.0);
        let step = width / of.bars.len().max(1) as f64;
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 480 144\" role=\"img\" aria-label=\"{}\">",
            escaped(title),
            escaped(title)
        );
        for (at, count) in of.bars.iter().enumerate() {
            let bar = *count as f64 / most * height;
            let x = at as f64 * step;
            let y = height - bar;
            let wide = (step - 1.0).max(0.5);
            let _ =
                write!(svg, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{wide:.1}\" height=\"{bar:.1}\"><title>{count} rows</title></rect>");
        }
        let _ = write!(
            svg,
            "<text x=\"0\" y=\"139\">{}</text><text x=\"480\" y=\"139\" text-anchor=\"end\">{}</text></svg>",
            number(of.min),
            number(of.max)
        );
        self.add(&svg);
        self.add(&format!(
            "<p class=\"figures\">5 % up to {}, half up to {}, 95 % up to {}; mean {:.1}, together {}</p></figure>\n",
            number(of.p05),
            number(of.p50),
            number(of.p95),
            of.mean,
            number(of.total)
        ));
    }

    /// Horizontal bars, the largest first.
    fn bars(&mut self, title: &str, counts: &[(String, u64)]) {
        let mut counts = counts.to_vec();
        counts.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        let hidden = counts.len().saturating_sub(MOST_BARS);
        counts.truncate(MOST_BARS);
        let most = counts.first().map_or(1, |(_, count)| *count).max(1) as f64;
        let height = counts.len() * 24 + 4;
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 480 {height}\" role=\"img\" aria-label=\"{}\">",
            escaped(title),
            escaped(title)
        );
        for (at, (name, count)) in counts.iter().enumerate() {
            let y = at * 24;
            let bar = *count as f64 / most * 196.0;
            let short: String =
                if name.chars().count() > MOST_NAME { name.chars().take(MOST_NAME - 1).chain(['…']).collect() } else { name.clone() };
            let text = y + 17;
            let label = bar + 206.0;
            let _ = write!(
                svg,
                "<text x=\"194\" y=\"{text}\" text-anchor=\"end\">{}<title>{}</title></text><rect x=\"200\" y=\"{}\" width=\"{bar:.1}\" height=\"16\"/><text x=\"{label:.1}\" y=\"{text}\">{}</text>",
                escaped(&short),
                escaped(name),
                y + 3,
                number(*count)
            );
        }
        svg.push_str("</svg>");
        self.add(&svg);
        if hidden > 0 {
            self.add(&format!("<p class=\"figures\">and {hidden} more</p>"));
        }
        self.add("</figure>\n");
    }
}

fn named<K: ToString>(counts: &BTreeMap<K, u64>) -> Vec<(String, u64)> {
    counts.iter().map(|(key, count)| (key.to_string(), *count)).collect()
}

/// `1 row`, `2 rows`.
fn count(found: u64, what: &str) -> String {
    format!("{} {what}{}", number(found), if found == 1 { "" } else { "s" })
}

/// What a reader should know first.
fn findings(stats: &Stats) -> Vec<String> {
    let mut found = Vec::new();
    let mut say = |count: u64, text: String| {
        if count > 0 {
            found.push(text);
        }
    };
    for part in &stats.parts {
        let name = &part.name;
        say(part.unreadable.count, format!("{name}: {} without a row", count(part.unreadable.count, "line")));
        say(part.conflicts.groups, format!("{name}: {} with different answers", count(part.conflicts.groups, "question")));
        say(
            part.over_limit.rows.count,
            format!(
                "{name}: {} of more than {} tokens, {} without an answer then",
                count(part.over_limit.rows.count, "row"),
                part.over_limit.limit,
                part.over_limit.replies_cut
            ),
        );
        say(part.exact_duplicates.rows, format!("{name}: {} exactly like another one", count(part.exact_duplicates.rows, "row")));
        say(
            part.near_duplicates.rows,
            format!("{name}: {} with nearly the question of another one", count(part.near_duplicates.rows, "row")),
        );
        let personal: u64 = part.personal.values().map(|lines| lines.count).sum();
        say(personal, format!("{name}: personal data or secrets in {}", count(personal, "place")));
        say(
            part.language_switches.count,
            format!("{name}: {} in another language than the question", count(part.language_switches.count, "answer")),
        );
        if part.rows < 50 {
            found_few(&mut say, part);
        }
    }
    for leak in &stats.leakage {
        say(
            leak.by_text + leak.by_document,
            format!(
                "{}: {} with the question of a training row, {} answered from its documents",
                leak.part,
                count(leak.by_text, "row"),
                number(leak.by_document)
            ),
        );
    }
    found
}

fn found_few(say: &mut impl FnMut(u64, String), part: &PartStats) {
    if part.name == "train" || part.name == "rows" {
        say(1, format!("{}: {} rows; 50 to 100 consistent ones are where gains begin", part.name, part.rows));
    }
}

fn duplicates(page: &mut Page, title: &str, found: &Duplicates) {
    page.heading(title, &format!("{} beyond the first of {}.", count(found.rows, "row"), count(found.groups, "group")));
    let rows: Vec<Vec<String>> =
        found.lines.iter().take(20).map(|group| vec![lines(&group[..group.len().min(12)], group.len() as u64)]).collect();
    page.table(&["lines"], &rows);
}

fn conflicts(page: &mut Page, examples: &[Conflict]) {
    let rows: Vec<Vec<String>> = examples
        .iter()
        .take(20)
        .flat_map(|conflict| {
            conflict
                .lines
                .iter()
                .zip(conflict.inputs.iter().zip(&conflict.outputs))
                .take(4)
                .map(|(line, (input, output))| vec![line.to_string(), input.clone(), output.clone()])
        })
        .collect();
    page.table(&["line", "asked", "answered"], &rows);
}

fn listed(title: &str, found: &Lines) -> Vec<String> {
    vec![title.to_owned(), number(found.count), lines(&found.lines, found.count)]
}

fn part(page: &mut Page, part: &PartStats) {
    page.add(&format!(
        "<h2>{}: {} rows</h2>\n<p class=\"says\">{}</p>\n",
        escaped(&part.name),
        number(part.rows),
        escaped(&part.path.display().to_string())
    ));
    page.add("<div class=\"plots\">\n");
    page.histogram("Tokens of a row", &part.tokens.row);
    page.histogram("Tokens of its last reply", &part.tokens.reply);
    page.histogram("Messages of a row", &part.turns);
    page.bars("Tokens by who speaks", &named(&part.tokens.by_role));
    if let Some(labels) = &part.labels {
        page.bars(&format!("{} labels from the {}, balance {:.2}", labels.labels, labels.from, labels.balance), &named(&labels.rows));
    }
    page.bars("Languages of the answers", &named(&part.output_languages));
    if !part.kinds.is_empty() {
        page.bars("Kinds of rows", &named(&part.kinds));
    }
    if !part.oracle_positions.is_empty() {
        let positions: Vec<(String, u64)> =
            part.oracle_positions.iter().map(|(position, count)| (format!("snippet {position}"), *count)).collect();
        page.bars("Where the answer stands among the snippets", &positions);
    }
    page.add("</div>\n");
    page.heading("Findings by line", "");
    let mut rows = vec![
        listed("no row", &part.unreadable),
        listed(&format!("more than {} tokens", number(part.over_limit.limit)), &part.over_limit.rows),
        listed("answer in another language than the question", &part.language_switches),
    ];
    rows.extend(part.personal.iter().map(|(kind, found)| listed(&format!("personal data: {kind}"), found)));
    rows.retain(|row| row[1] != "0");
    page.table(&["what", "rows", "lines"], &rows);
    if rows.is_empty() {
        page.add("<p>None.</p>\n");
    }
    if part.conflicts.groups > 0 {
        page.heading(
            "Contradictions",
            &format!(
                "{} asked nearly alike and answered differently. Such rows teach noise: decide for one answer.",
                count(part.conflicts.groups, "question")
            ),
        );
        conflicts(page, &part.conflicts.examples);
    }
    if part.exact_duplicates.rows > 0 {
        duplicates(page, "Exact duplicates", &part.exact_duplicates);
    }
    if part.near_duplicates.rows > 0 {
        duplicates(page, "Near duplicates", &part.near_duplicates);
    }
    if let Some(tone) = &part.tone {
        page.heading(
            "Tone",
            &format!("Consistency {:.2}. Lines are named where nine in ten answers agree and these do not.", tone.consistency),
        );
        let rows: Vec<Vec<String>> = tone
            .traits
            .iter()
            .map(|found| {
                vec![found.name.to_owned(), format!("{:.0} %", found.share * 100.0), lines(&found.breaks, found.breaks.len() as u64)]
            })
            .collect();
        page.table(&["answers", "share", "lines that break the habit"], &rows);
        if !tone.long.is_empty() {
            page.add(&format!("<p>Much longer than the others: {}</p>\n", lines(&tone.long, tone.long.len() as u64)));
        }
    }
}

/// The whole report.
pub fn html(stats: &Stats) -> String {
    let mut page = Page(format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><title>Dataset report</title><style>{STYLE}</style></head><body><main>\n<h1>Dataset report</h1>\n"
    ));
    let found = findings(stats);
    if found.is_empty() {
        page.add("<p>Nothing stands out.</p>\n");
    } else {
        page.add("<ul class=\"findings\">\n");
        found.iter().for_each(|text| page.add(&format!("<li>{}</li>\n", escaped(text))));
        page.add("</ul>\n");
    }
    stats.parts.iter().for_each(|found| part(&mut page, found));
    if !stats.leakage.is_empty() {
        page.add("<h2>Between the parts</h2>\n");
        page.heading("", "Rows that a part shares with the training rows make its figures too good.");
        let rows: Vec<Vec<String>> = stats
            .leakage
            .iter()
            .map(|leak| {
                let pairs: Vec<String> = leak.lines.iter().take(12).map(|(there, here)| format!("{there}→{here}")).collect();
                vec![
                    leak.part.clone(),
                    number(leak.by_text),
                    number(leak.by_document),
                    pairs.join(", "),
                    leak.documents.iter().take(6).cloned().collect::<Vec<_>>().join(", "),
                ]
            })
            .collect();
        page.table(&["part", "same question", "same document", "line there → line in train", "documents"], &rows);
    }
    let cost = &stats.cost;
    page.add("<h2>Cost</h2>\n");
    page.heading("", &format!("{} epochs, {} trained tokens (tokenizer {}).", cost.epochs, number(cost.billed_tokens), stats.tokenizer));
    if cost.models.is_empty() {
        page.add("</main></body></html>\n");
        return page.0;
    }
    page.heading("", &format!("Prices in USD of {}; break-even counts requests like these rows.", cost.prices_of));
    let rows: Vec<Vec<String>> = cost
        .models
        .iter()
        .map(|model| {
            vec![
                model.name.clone(),
                format!("{:.2}", model.training_usd),
                format!("{:.3}", model.tuned_usd),
                format!("{:.3}", model.untuned_usd),
                format!("{:.0}", model.cheaper_from_prompt_tokens),
                model.break_even_requests.map_or("never".to_owned(), number),
                model.off.clone().unwrap_or_default(),
            ]
        })
        .collect();
    page.table(
        &[
            "model",
            "training",
            "1,000 tuned requests",
            "1,000 untuned requests",
            "cheaper from prompt tokens",
            "pays after requests",
            "switched off",
        ],
        &rows,
    );
    page.add("</main></body></html>\n");
    page.0
}
