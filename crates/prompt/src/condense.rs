//! What a model reads that makes a question of its own out of a follow-up. The prompt of an answer has nothing to do with it, and no fingerprint knows it.

use crate::{PromptMessage, Role};

/// Turns before the question that are shown.
const MOST_TURNS: usize = 6;
/// Of a longer turn only the beginning is shown, in bytes.
const TURN_BYTES: usize = 600;

/// The messages; `history` is everything before the question, oldest first.
pub fn condense_prompt(history: &[PromptMessage], question: &str) -> Vec<PromptMessage> {
    let turns: Vec<&PromptMessage> = history.iter().filter(|turn| turn.role != Role::System).collect();
    let mut text = String::new();
    for turn in &turns[turns.len().saturating_sub(MOST_TURNS)..] {
        let speaker = if turn.role == Role::User { "Customer" } else { "Assistant" };
        let shown = &turn.content[..turn.content.floor_char_boundary(TURN_BYTES)];
        text.push_str(&format!("{speaker}: {}\n", shown.trim().replace('\n', " ")));
    }
    text.push_str(&format!("Last question: {}", question.trim()));
    vec![PromptMessage::new(Role::System, include_str!("../templates/condense.system.txt").trim()), PromptMessage::new(Role::User, text)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_shows_the_last_turns_and_the_question() {
        let turns: Vec<PromptMessage> = (0..9)
            .map(|at| PromptMessage::new(if at % 2 == 0 { Role::User } else { Role::Assistant }, format!("turn\n{at}")))
            .chain([PromptMessage::new(Role::System, "Be brief.")])
            .collect();
        let messages = condense_prompt(&turns, " And to Norway? ");
        insta::assert_snapshot!(messages[1].content, @r"
        Assistant: turn 3
        Customer: turn 4
        Assistant: turn 5
        Customer: turn 6
        Assistant: turn 7
        Customer: turn 8
        Last question: And to Norway?
        ");
        assert!(messages[0].content.starts_with("Rewrite the last question"));
    }
}
