use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn conversation(turns: &[&str]) -> Vec<PromptMessage> {
    let role = |at: usize| if at.is_multiple_of(2) { Role::User } else { Role::Assistant };
    turns.iter().enumerate().map(|(at, text)| PromptMessage::new(role(at), *text)).collect()
}

#[test]
fn follow_ups_say_what_they_mean() {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["What is the delivery charge to Switzerland?", "17.50 euro."], "And to Norway?", "to Norway? (delivery charge)"),
        (
            &["What is the delivery charge to Switzerland?", "17.50 euro."],
            "How long does it take?",
            "How long does it take? (delivery charge Switzerland)",
        ),
        (&["Is the Dublin shop open on Mondays?", "No."], "What about Cork?", "Cork? (Dublin shop open Mondays)"),
        (
            &["Which kettle is the quietest?", "The quietest is the Swift, at 54 dB."],
            "How much is it?",
            "How much is it? (kettle quietest Swift)",
        ),
        (&["How much is the Heron kettle?", "149 euro."], "Why?", "Why? (Heron kettle)"),
        (&["How much is the Heron kettle?", "149 euro."], "Is there a cheaper one?", "Is there a cheaper one? (Heron kettle)"),
        (
            &["How much is the Heron kettle?", "149 euro.", "And the Swift?", "99 euro.", "Thanks!", "Welcome."],
            "Does it whistle?",
            "Does it whistle? (Swift Heron kettle)",
        ),
        (&["Was kostet die Lieferung nach Österreich?", "8 Euro."], "Und in die Schweiz?", "in die Schweiz? (kostet Lieferung Österreich)"),
        (&["Was kostet die Lieferung nach Österreich?", "8 Euro."], "Und nach Polen?", "nach Polen? (kostet Lieferung)"),
        (&["Kann ich den Wasserkocher zurückgeben?", "Ja."], "Wie lange geht das?", "Wie lange geht das? (Wasserkocher zurückgeben)"),
        (&["Kann ich den Wasserkocher zurückgeben?", "Ja."], "Was ist mit Tee?", "Tee? (Wasserkocher zurückgeben)"),
        (&["Ist der Laden in Graz am Montag offen?", "Nein."], "Und am Samstag?", "am Samstag? (Laden Graz Montag offen)"),
    ];
    let wrong = |(turns, question, meant): &&(&[&str], &str, &str)| {
        rewrite(question, &conversation(turns)) != Rewrite::Rewritten((*meant).to_owned())
    };
    let wrong: Vec<Rewrite> = cases.iter().filter(wrong).map(|(turns, question, _)| rewrite(question, &conversation(turns))).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn questions_that_stand_for_themselves_are_left_alone() {
    let history = conversation(&["What is the delivery charge to Switzerland?", "17.50 euro."]);
    for question in [
        "How long is the warranty on the Dipper?",
        "Can I pay with American Express?",
        "Is there a shop in Dublin?",
        "Is it possible to return an engraved kettle?",
        "Are there free samples of tea?",
        "Do engraved items need more time before they leave?",
        "Does that kettle work on induction hobs without an adapter?",
        "Thanks!",
        "Ok, great, thank you!",
        "Hello",
        "Wie lange gilt die Garantie auf den Dipper?",
        "Gibt es einen Laden in Dublin?",
        "Verkaufen Sie auch Gutscheine für Freunde?",
        "Passt das Sieb in die Kanne?",
        "Danke!",
        "🫖?",
        "",
    ] {
        assert_eq!(rewrite(question, &history), Rewrite::Standalone, "{question}");
    }
    for question in ["And to Norway?", "Why?", "Is it covered?"] {
        assert_eq!(rewrite(question, &[]), Rewrite::Standalone, "without a history: {question}");
    }
}

#[test]
fn longer_questions_that_point_back_are_for_the_model() {
    let history = conversation(&["How much is the Heron kettle?", "149 euro."]);
    for question in ["Can I send it back after using water twice?", "And does it keep working after the warranty ends?"] {
        assert!(matches!(rewrite(question, &history), Rewrite::Unsure(guess) if guess.contains("Heron")), "{question}");
    }
}

/// Answers from a script and counts the calls.
struct Scripted(Result<&'static str, &'static str>, Duration, AtomicUsize);

#[async_trait]
impl Condense for Scripted {
    async fn condense(&self, _: &str, _: &[PromptMessage], max_tokens: u32) -> Result<String, String> {
        assert_eq!(max_tokens, 48);
        self.2.fetch_add(1, Ordering::SeqCst);
        tokio::time::sleep(self.1).await;
        self.0.map(str::to_owned).map_err(str::to_owned)
    }
}

#[tokio::test]
async fn the_model_is_asked_once_where_the_rules_are_unsure_and_never_waited_for() {
    let history = conversation(&["How much is the Heron kettle?", "149 euro."]);
    let (unsure, sure) = ("Can I send it back after using water twice?", "And the Swift?");
    let limits = CondenseLimits { timeout: Duration::from_millis(50), ..CondenseLimits::default() };
    let good = || Scripted(Ok(" Can I send the Heron back after use? \n"), Duration::ZERO, AtomicUsize::new(0));
    let model = good();
    let expect = Resolved { question: "Can I send the Heron back after use?".into(), basis: Basis::Model };
    assert_eq!(resolve(unsure, &history, Some(&model), limits).await, expect);
    assert_eq!(resolve(sure, &history, Some(&model), limits).await.basis, Basis::Rule);
    assert_eq!(resolve("Thanks!", &history, Some(&model), limits).await.basis, Basis::Asked);
    assert_eq!(model.2.load(Ordering::SeqCst), 1);
    let rule = resolve(unsure, &history, None, limits).await;
    assert!(rule.basis == Basis::Rule && rule.question.contains("Heron"), "{rule:?}");
    for bad in [
        Scripted(Ok(""), Duration::ZERO, AtomicUsize::new(0)),
        Scripted(Ok("two\nlines"), Duration::ZERO, AtomicUsize::new(0)),
        Scripted(Err("down"), Duration::ZERO, AtomicUsize::new(0)),
        Scripted(Ok("late"), Duration::from_secs(60), AtomicUsize::new(0)),
    ] {
        assert_eq!(resolve(unsure, &history, Some(&bad), limits).await, rule);
    }
}

#[test]
fn a_long_conversation_costs_little_and_hostile_text_nothing() {
    let turns: Vec<String> = (0..2_000).map(|at| format!("And what about number {at}? {}", "it ".repeat(50))).collect();
    let turns: Vec<&str> = turns.iter().map(String::as_str).collect();
    let started = std::time::Instant::now();
    assert!(matches!(rewrite("And?", &conversation(&turns)), Rewrite::Rewritten(meant) if meant.len() < 400));
    rewrite(&"it ".repeat(50_000), &conversation(&["x".repeat(100_000).as_str()]));
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
}
