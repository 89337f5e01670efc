use super::*;
use groundtone_answer::{Canary, CitedSource, Decision as Routed, Error, Timings, route};
use groundtone_catalog::Outcome;
use groundtone_evals::stats::SignalRule;
use groundtone_prompt::{Basis, PromptMessage, Role};
use groundtone_provider::FinishReason;
use groundtone_types::{Chunk, DocumentId, Snippet, Span, Tenant};
use serde_json::json;

fn rules() -> CanaryRules {
    CanaryRules { test: CanarySettings::default(), slowest: Duration::from_secs(20) }
}

fn watching(trial: &Trial) -> CanaryWatch {
    let watch = CanaryWatch::new(rules(), Arc::default());
    watch.follow(Some(trial.clone()));
    watch
}

fn trial(release: &str) -> Trial {
    CanaryWatch::new(rules(), Arc::default()).begin(7, release.to_owned(), Some("rel_old".to_owned()), 100)
}

fn live(release: &str, percent: u8) -> Live {
    let canary = Some(Canary { release: release.into(), variant: "tuned-rag".into(), percent });
    Live { release: Some("rel_old".into()), variant: "rag".into(), canary, ..Live::default() }
}

fn snippet() -> Snippet {
    let chunk = Chunk {
        document: DocumentId::new("returns").unwrap(),
        ordinal: 0,
        span: Span { start: 0, end: 2 },
        heading_path: vec![],
        title: "Returns".into(),
        url: String::new(),
        text: "45".into(),
        page: None,
        parent: None,
        metadata: Default::default(),
    };
    Snippet { id: chunk.point_id(), score: 1.0, chunk }
}

/// A sound answer of this variant.
fn summary(variant: &str) -> Summary {
    let cited = CitedSource {
        start: 0,
        end: 1,
        number: 1,
        basis: Basis::Marker,
        status: CitationStatus::Supported,
        doubt: None,
        document: "returns".into(),
        title: "Returns".into(),
        url: String::new(),
    };
    Summary {
        citations: vec![cited],
        unresolved_markers: Vec::new(),
        removed_citations: Vec::new(),
        links_removed: 0,
        sources: vec![snippet()],
        finish: FinishReason::Stop,
        usage: None,
        variant: variant.into(),
        release: None,
        canary: false,
        fell_back_from: None,
        prompt_fingerprint: String::new(),
        model: "m".into(),
        abstained: false,
        abstained_because: None,
        evidence: None,
        rewritten_query: None,
        timings: Timings::default(),
        trace_id: None,
    }
}

fn question(conversation: &str) -> Question {
    let messages = vec![PromptMessage::new(Role::User, "How long?")];
    Question { conversation: Some(conversation.into()), ..Question::new(Tenant::default(), messages) }
}

/// Tells the watch of one end, of a conversation that the router has drawn.
fn tell(watch: &CanaryWatch, live: &Live, conversation: &str, seconds: f64, ending: impl FnOnce(bool) -> Result<Summary, Error>) {
    let (question, decision) = (question(conversation), route(live, None, conversation, &|_| true));
    tell_of(watch, live, &question, &decision, seconds, &ending(decision.canary));
}

fn tell_of(watch: &CanaryWatch, live: &Live, question: &Question, decision: &Routed, seconds: f64, ending: &Result<Summary, Error>) {
    let conversation = question.conversation.clone().unwrap_or_default();
    let ending = match ending {
        Ok(summary) => Ending::Answered("", summary),
        Err(error) => Ending::Failed(error),
    };
    let took = Duration::from_secs_f64(seconds);
    watch.ended(&Ended { question, conversation: &conversation, decision, live, ending, took });
}

fn sound(is_canary: bool) -> Result<Summary, Error> {
    Ok(summary(if is_canary { "tuned-rag" } else { "rag" }))
}

/// A number between 0 and 1 that this run has for this conversation.
fn chance(run: u32, conversation: u32, what: &str) -> f64 {
    let mut hasher = DefaultHasher::new();
    (run, conversation, what).hash(&mut hasher);
    (hasher.finish() >> 11) as f64 / (1u64 << 53) as f64
}

/// Asks `conversations` questions, a fifth of them to the canary. An answer fails, abstains, is cited wrongly and is slow by chance; `worse` adds to what the canary does.
fn simulate(run: u32, conversations: u32, worse: &[(Signal, f64)]) -> Decision {
    let name = format!("rel_{run}");
    let (watch, live) = (watching(&trial(&name)), live(&name, 20));
    for number in 0..conversations {
        let more = |signal, is_canary| worse.iter().filter(|(worse, _)| is_canary && *worse == signal).map(|(_, more)| more).sum::<f64>();
        let happens = |signal, base: f64, is_canary| chance(run, number, signal_name(signal)) < base + more(signal, is_canary);
        let is_canary = route(&live, None, &format!("c{number}"), &|_| true).canary;
        let seconds = chance(run, number, "seconds") * (6.0 + 40.0 * more(Signal::Latency, is_canary));
        tell(&watch, &live, &format!("c{number}"), seconds, |is_canary| {
            if happens(Signal::Error, 0.01, is_canary) {
                return Err(Error::Unfinished { model: "m".into() });
            }
            let mut summary = sound(is_canary)?;
            if happens(Signal::Abstention, 0.15, is_canary) {
                (summary.abstained, summary.abstained_because) = (true, Some(AbstainReason::Model));
            } else if happens(Signal::CitationFailure, 0.1, is_canary) {
                summary.citations.clear();
            }
            Ok(summary)
        });
        let decision = watch.status().unwrap().decision;
        if decision != Decision::Continue {
            return decision;
        }
    }
    Decision::Continue
}

#[test]
fn a_canary_that_is_the_same_is_left_alone_and_a_worse_one_is_stopped() {
    let stopped = (0..1_000).filter(|run| matches!(simulate(*run, 400, &[]), Decision::Stop { .. })).count();
    assert!(stopped <= 50, "{stopped} of 1000 A/A canaries were stopped");
    for (signal, more) in [(Signal::Error, 0.3), (Signal::CitationFailure, 0.5), (Signal::Abstention, 0.5), (Signal::Latency, 0.7)] {
        let right = |run: &u32| matches!(simulate(*run, 1_500, &[(signal, more)]), Decision::Stop { signal: found, .. } if found == signal);
        let found = (0..100).filter(right).count();
        assert!(found >= 95, "{signal:?}: {found} of 100 regressions were stopped");
    }
}

#[test]
fn what_an_end_says_of_a_release() {
    let live = live("rel_new", 100);
    let question = question("c");
    let decision = route(&live, None, "c", &|_| true);
    let says = |ending: Ending<'_>, seconds: u64| {
        let took = Duration::from_secs(seconds);
        let ended = Ended { question: &question, conversation: "c", decision: &decision, live: &live, ending, took };
        harms(&ended, "tuned-rag", Duration::from_secs(20))
            .iter()
            .map(|(signal, harm)| format!("{} {harm}", signal_name(*signal)))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let answered = |change: &dyn Fn(&mut Summary)| {
        let mut summary = summary("tuned-rag");
        change(&mut summary);
        says(Ending::Answered("", &summary), 5)
    };
    assert_eq!(answered(&|_| {}), "error 0, abstention 0, latency 0.25, citation_failure 0");
    let failed = "error 0, abstention 0, latency 0.25, citation_failure 1";
    assert_eq!(answered(&|summary| summary.citations.clear()), failed);
    assert_eq!(answered(&|summary| summary.unresolved_markers.push(9)), failed);
    assert_eq!(answered(&|summary| summary.citations[0].status = CitationStatus::Unsupported), failed);
    assert_eq!(
        answered(&|summary| summary.citations[0].status = CitationStatus::Repaired),
        "error 0, abstention 0, latency 0.25, citation_failure 0"
    );
    let abstained = |because| move |summary: &mut Summary| (summary.abstained, summary.abstained_because) = (true, Some(because));
    assert_eq!(answered(&abstained(AbstainReason::Model)), "error 0, abstention 1, latency 0.25");
    assert_eq!(answered(&abstained(AbstainReason::Citations)), "error 0, abstention 1, latency 0.25, citation_failure 1");
    assert_eq!(
        answered(&|summary| summary.sources.clear()),
        "error 0, abstention 0, latency 0.25",
        "without documents nothing can be cited"
    );
    assert_eq!(answered(&|summary| summary.variant = "rag".into()), "error 1", "somebody else had to answer");
    assert_eq!(says(Ending::Failed(&Error::Unfinished { model: "m".into() }), 5), "error 1");
    assert_eq!(says(Ending::Failed(&Error::Conversation("it is empty")), 5), "", "the client's fault");
    assert_eq!((says(Ending::Left, 5), says(Ending::Left, 20)), (String::new(), "latency 1".to_owned()));
}

#[test]
fn one_client_that_repeats_itself_counts_once() {
    let (watch, live) = (watching(&trial("rel_new")), live("rel_new", 50));
    let of =
        |is_canary| (0..).map(|number| format!("c{number}")).find(|name| route(&live, None, name, &|_| true).canary == is_canary).unwrap();
    let (canary, other) = (of(true), of(false));
    for _ in 0..500 {
        tell(&watch, &live, &canary, 1.0, |_| Err(Error::Unfinished { model: "m".into() }));
        tell(&watch, &live, &other, 1.0, sound);
    }
    let status = watch.status().unwrap();
    assert_eq!((status.decision, status.signals[&Signal::Error].canary_count), (Decision::Continue, 1));
    assert_eq!(status.signals[&Signal::Error].baseline_count, 1);
}

#[test]
fn only_what_was_drawn_for_this_trial_counts() {
    let (watch, current) = (watching(&trial("rel_new")), live("rel_new", 100));
    let seen = |watch: &CanaryWatch| watch.status().unwrap().signals[&Signal::Error].canary_count;
    let (mut pinned, decision) = (question("p"), route(&current, None, "p", &|_| true));
    pinned.variant = Some("tuned-rag".into());
    tell_of(&watch, &current, &pinned, &decision, 1.0, &sound(true));
    tell(&watch, &live("rel_other", 100), "a", 1.0, sound);
    tell(&watch, &Live { release: Some("rel_older".into()), ..current.clone() }, "b", 1.0, sound);
    tell(&watch, &Live { canary: None, ..current.clone() }, "c", 1.0, sound);
    assert_eq!(seen(&watch), 0);
    tell(&watch, &current, "d", 1.0, sound);
    assert_eq!(seen(&watch), 1);
    // It is stored, gone on with, and begun anew under other rules.
    let stored: Trial = serde_json::from_value(serde_json::to_value(watch.take_unsaved().unwrap()).unwrap()).unwrap();
    assert!(watch.take_unsaved().is_none() && watch.follows(7) && !watch.follows(8));
    assert_eq!(seen(&watching(&stored)), 1);
    let mut strict = rules();
    strict.test.rules.push(SignalRule { signal: Signal::Feedback, margin: 0.01, required: false });
    let other = CanaryWatch::new(strict, Arc::default());
    other.follow(Some(stored));
    assert_eq!(seen(&other), 0);
    other.follow(None);
    assert!(other.status().is_none() && other.must_end().is_none());
}

#[test]
fn a_rating_counts_for_the_release_that_was_rated() {
    let (watch, live) = (watching(&trial("rel_new")), live("rel_new", 50));
    let trace = |at: i64, release: Option<&str>, variant: &str| TraceRecord {
        id: "tr_1".into(),
        at,
        key: None,
        request_id: None,
        variant: variant.into(),
        release: release.map(str::to_owned),
        model: "m".into(),
        outcome: Outcome::Answered,
        error: None,
        question: String::new(),
        query: String::new(),
        answer: String::new(),
        messages: json!([]),
        sampling: json!({}),
        snippets: Vec::new(),
        citations: json!([]),
        prompt_fingerprint: String::new(),
        usage: None,
        money: 0.0,
        timings: json!({}),
        feedback: None,
    };
    for other in [
        trace(99, Some("rel_new"), "tuned-rag"),
        trace(100, Some("rel_older"), "rag"),
        trace(100, None, "rag"),
        trace(100, Some("rel_new"), "rag"),
    ] {
        watch.rated(&live, &other, true);
    }
    let standing = || watch.status().unwrap().signals[&Signal::Feedback];
    assert_eq!((standing().canary_count, standing().baseline_count), (0, 0));
    for _ in 0..60 {
        watch.rated(&live, &trace(100, Some("rel_new"), "tuned-rag"), true);
        watch.rated(&live, &trace(100, Some("rel_old"), "rag"), false);
    }
    let (release, reason) = watch.must_end().unwrap();
    assert!(release == "rel_new" && reason.starts_with("stopped by itself: feedback 1.000 over "), "{reason}");
    assert_eq!(standing().baseline, 0.0);
}
