use crate::{CountTokens, Fingerprint, PromptContract, PromptMessage, Role};
use groundtone_types::Snippet;
use serde::Serialize;
use std::collections::HashSet;
use uuid::Uuid;

/// Tokens that a chat template adds around one message: role, delimiters, newline. An upper bound for ChatML and for OpenAI's format (4).
const TOKENS_PER_MESSAGE: usize = 8;

/// What is to be rendered.
#[derive(Debug, Clone, Copy)]
pub struct PromptInput<'a> {
    /// The conversation before the question, oldest first. The client's own system messages are honoured: they follow the contract's text.
    pub history: &'a [PromptMessage],
    /// The customer's last message.
    pub question: &'a str,
    /// What retrieval found, best first.
    pub snippets: &'a [Snippet],
}

/// Why a snippet is not in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DropReason {
    /// The same text is in the prompt already.
    Duplicate,
    /// It did not fit in the budget.
    Budget,
}

/// A snippet that is not in the prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// The stored point.
    pub id: Uuid,
    /// Why.
    pub reason: DropReason,
}

/// Messages for the model, and what they were made of.
#[derive(Debug, Clone)]
pub struct RenderedPrompt {
    /// What the model reads.
    pub messages: Vec<PromptMessage>,
    /// The citation map: source number `n` is `sources[n - 1]`.
    pub sources: Vec<Snippet>,
    /// Snippets that were left out; with `sources` they add up to the input.
    pub dropped: Vec<Dropped>,
    /// Messages of the history that were left out, oldest first.
    pub dropped_history: usize,
    /// The contract's fingerprint.
    pub fingerprint: Fingerprint,
    /// Upper bound of the prompt's tokens.
    pub prompt_tokens: usize,
}

/// Why a prompt could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Even without sources and history it is too long.
    #[error("the system text and the question take {needed} tokens, but only {budget} fit")]
    DoesNotFit {
        /// What they take.
        needed: usize,
        /// What the model reads.
        budget: usize,
    },
}

/// Fills `{{name}}` in one pass: what is filled in is never looked at again. `{{unknown}}` stays as it is.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut out = String::with_capacity(template.len() + values.iter().map(|(_, value)| value.len()).sum::<usize>());
    let mut rest = template;
    while let Some(open) = rest.find("{{") {
        out.push_str(&rest[..open]);
        let tail = &rest[open + 2..];
        let found =
            tail.find("}}").and_then(|close| values.iter().find(|(name, _)| *name == &tail[..close]).map(|(_, value)| (close, value)));
        match found {
            Some((close, value)) => {
                out.push_str(value);
                rest = &tail[close + 2..];
            }
            None => {
                out.push_str("{{");
                rest = tail;
            }
        }
    }
    out.push_str(rest);
    out
}

/// The client's own system messages follow the contract's text.
fn with_client_text(mut text: String, history: &[PromptMessage]) -> String {
    for message in history.iter().filter(|message| message.role == Role::System) {
        text.push_str("\n\n");
        text.push_str(&message.content);
    }
    text
}

/// The newest turns of a history that fit into `room`, how many older ones do not, and the room that is left.
fn newest(history: &[PromptMessage], room: usize, cost: &dyn Fn(&str) -> usize) -> (Vec<PromptMessage>, usize, usize) {
    let turns: Vec<&PromptMessage> = history.iter().filter(|message| message.role != Role::System).collect();
    let (mut left, mut kept) = (room, turns.len());
    while kept > 0 && cost(&turns[kept - 1].content) <= left {
        left -= cost(&turns[kept - 1].content);
        kept -= 1;
    }
    (turns[kept..].iter().map(|turn| (*turn).clone()).collect(), kept, left)
}

impl PromptContract {
    /// Renders the messages for one question.
    ///
    /// `budget` is the most tokens that the prompt may have; `tokens` measures them and must be the contract's tokenizer.
    /// The system text and the question always stay whole. Sources come first, best first, up to the contract's `context_tokens`;
    /// then as much of the history as fits, newest first. The same snippet text never appears twice.
    pub fn render(&self, input: &PromptInput<'_>, budget: usize, tokens: &dyn CountTokens) -> Result<RenderedPrompt, Error> {
        debug_assert_eq!(tokens.id(), self.tokenizer, "the contract is measured by its own tokenizer");
        let cost = |text: &str| tokens.count(text) + TOKENS_PER_MESSAGE;
        let system = self.system_text(input.history);
        let example = self.template.templates().example;
        let needed = cost(&system) + example.iter().map(|text| cost(text)).sum::<usize>() + cost(&self.user_text("", input.question));
        if needed > budget {
            return Err(Error::DoesNotFit { needed, budget });
        }
        let (sources, blocks, dropped, source_tokens) = self.pack(input.snippets, budget - needed, tokens);
        let (turns, dropped_history, left) = newest(input.history, budget - needed - source_tokens, &cost);
        let mut messages = vec![PromptMessage::new(Role::System, system)];
        messages.push(PromptMessage::new(Role::User, example[0]));
        messages.push(PromptMessage::new(Role::Assistant, example[1]));
        messages.extend(turns);
        messages.push(PromptMessage::new(Role::User, self.user_text(&blocks, input.question)));
        let prompt_tokens = budget - left;
        Ok(RenderedPrompt { messages, sources, dropped, dropped_history, fingerprint: self.fingerprint(), prompt_tokens })
    }

    /// The messages of one question where nothing was retrieved and nothing is to be: the brand's text, the conversation and the question as it is,
    /// without sources and without the worked example. What a model is asked that was tuned for form alone, and one with a long prompt.
    ///
    /// `budget` and `tokens` are those of [`Self::render`]: of the history as much is kept as fits, newest first.
    pub fn render_plain(
        &self,
        history: &[PromptMessage],
        question: &str,
        budget: usize,
        tokens: &dyn CountTokens,
    ) -> Result<RenderedPrompt, Error> {
        let cost = |text: &str| tokens.count(text) + TOKENS_PER_MESSAGE;
        let system = with_client_text(self.system.trim().to_owned(), history);
        let needed = cost(&system) + cost(question);
        if needed > budget {
            return Err(Error::DoesNotFit { needed, budget });
        }
        let (turns, dropped_history, left) = newest(history, budget - needed, &cost);
        let mut messages = vec![PromptMessage::new(Role::System, system)];
        messages.extend(turns);
        messages.push(PromptMessage::new(Role::User, question));
        let fingerprint = self.plain_fingerprint();
        Ok(RenderedPrompt {
            messages,
            sources: Vec::new(),
            dropped: Vec::new(),
            dropped_history,
            fingerprint,
            prompt_tokens: budget - left,
        })
    }

    fn system_text(&self, history: &[PromptMessage]) -> String {
        let text = fill(self.template.templates().system, &[("system", self.system.trim()), ("abstain", self.abstain.trim())]);
        with_client_text(text, history)
    }

    fn user_text(&self, blocks: &str, question: &str) -> String {
        fill(self.template.templates().user, &[("sources", if blocks.is_empty() { "(none)\n\n" } else { blocks }), ("question", question)])
    }

    /// Takes snippets in order while they fit; a later, smaller one may still fit where an earlier one did not.
    fn pack(&self, snippets: &[Snippet], room: usize, tokens: &dyn CountTokens) -> (Vec<Snippet>, String, Vec<Dropped>, usize) {
        let room = room.min(self.context_tokens);
        let (mut sources, mut blocks, mut dropped, mut taken) = (Vec::new(), String::new(), Vec::new(), 0);
        let mut seen = HashSet::new();
        for snippet in snippets {
            if !seen.insert(snippet.chunk.shown_text()) {
                dropped.push(Dropped { id: snippet.id, reason: DropReason::Duplicate });
                continue;
            }
            let number = (sources.len() + 1).to_string();
            let values =
                [("number", number.as_str()), ("breadcrumb", &snippet.chunk.breadcrumb()), ("text", snippet.chunk.shown_text().trim())];
            let block = fill(self.template.templates().source, &values);
            let size = tokens.count(&block);
            if taken + size > room {
                dropped.push(Dropped { id: snippet.id, reason: DropReason::Budget });
                continue;
            }
            taken += size;
            // The best source stands last, next to the question: models read the ends of a prompt best (Liu et al., "Lost in the Middle", 2024).
            blocks.insert_str(0, &block);
            sources.push(snippet.clone());
        }
        (sources, blocks, dropped, taken)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{OpenAiTokens, TemplateVersion};
    use groundtone_types::{Chunk, DocumentId, Span};
    use proptest::prelude::*;

    pub(crate) fn snippet(document: &str, heading: &str, text: &str) -> Snippet {
        let chunk = Chunk {
            document: DocumentId::new(document).unwrap(),
            ordinal: 0,
            span: Span { start: 0, end: text.len() },
            heading_path: vec![heading.into()],
            title: "Returns".into(),
            url: format!("https://example.test/{document}"),
            text: text.into(),
            page: None,
            parent: None,
            metadata: Default::default(),
        };
        Snippet { id: chunk.point_id(), chunk, score: 1.0 }
    }

    fn contract(context_tokens: usize) -> PromptContract {
        PromptContract {
            template: TemplateVersion::V1,
            system: "You answer for Acme.".into(),
            abstain: "I don't have that in our guides.".into(),
            context_tokens,
            tokenizer: "o200k_base".into(),
        }
    }

    #[test]
    fn the_prompt_as_the_model_reads_it() {
        let snippets = [
            snippet("returns.md", "Window", "You have 30 days."),
            snippet("again.md", "Window", "You have 30 days."),
            snippet("fees.md", "Fees", "Returns are free."),
        ];
        let history = [
            PromptMessage::new(Role::System, "Be brief."),
            PromptMessage::new(Role::User, "Hi"),
            PromptMessage::new(Role::Assistant, "Hello."),
        ];
        let input = PromptInput { history: &history, question: "How long do I have? {{sources}}", snippets: &snippets };
        let rendered = contract(700).render(&input, 2000, &*OpenAiTokens::for_model("gpt-4o")).unwrap();
        assert_eq!(rendered.dropped, [Dropped { id: snippets[1].id, reason: DropReason::Duplicate }]);
        let text: Vec<String> = rendered.messages.iter().map(|m| format!("<{}>\n{}", m.role.as_str(), m.content)).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        <system>
        You answer for Acme.
        Answer the question with facts from the sources only, in one or two sentences, and put the number of the source behind each fact. If no source has the answer, say: I don't have that in our guides.

        Be brief.
        <user>
        Sources:

        [2] Library › Opening hours
        The library opens at 10:00 and closes at 18:00. It is closed on Fridays.

        [1] Library › Cards
        A library card costs 8 dollars a year. Children pay nothing.

        Question: What does a card for the library cost?
        <assistant>
        A library card costs 8 dollars a year [1].
        <user>
        Hi
        <assistant>
        Hello.
        <user>
        Sources:

        [2] Returns › Fees
        Returns are free.

        [1] Returns › Window
        You have 30 days.


        Question: How long do I have? {{sources}}
        ");
    }

    proptest! {
        #[test]
        fn a_prompt_never_exceeds_its_budget_and_never_loses_a_snippet_quietly(
            texts in proptest::collection::vec("[a-zA-Z {}\\[\\]0-9.]{0,200}", 0..8), turns in proptest::collection::vec("[a-z ]{0,80}", 0..6),
            question in "[a-z ?]{1,60}", budget in 1usize..800, context_tokens in 0usize..300,
        ) {
            let tokens = OpenAiTokens::for_model("gpt-4o");
            let snippets: Vec<Snippet> = texts.iter().enumerate().map(|(i, text)| snippet(&format!("d{i}"), "H", text)).collect();
            let history: Vec<PromptMessage> = turns.iter().map(|turn| PromptMessage::new(Role::User, turn.clone())).collect();
            let input = PromptInput { history: &history, question: &question, snippets: &snippets };
            if let Ok(rendered) = contract(context_tokens).render(&input, budget, &*tokens) {
                let real: usize = rendered.messages.iter().map(|m| tokens.count(&m.content) + 4).sum();
                prop_assert!(real <= budget, "{real} > {budget}");
                prop_assert!(rendered.prompt_tokens <= budget);
                prop_assert_eq!(rendered.sources.len() + rendered.dropped.len(), snippets.len());
                prop_assert!(rendered.messages.last().unwrap().content.ends_with(&question));
                prop_assert_eq!(rendered.dropped_history + rendered.messages.len() - 4, history.len());
                let mut shown: Vec<&str> = rendered.sources.iter().map(|source| source.chunk.shown_text()).collect();
                shown.sort_unstable();
                prop_assert!(shown.windows(2).all(|pair| pair[0] != pair[1]), "a snippet is there twice");
                let places: Vec<usize> = rendered.sources.iter().filter_map(|source| snippets.iter().position(|given| given.id == source.id)).collect();
                prop_assert!(places.is_sorted(), "sources keep the order of the ranking");
                let again = contract(context_tokens).render(&input, budget, &*tokens).unwrap();
                prop_assert_eq!((again.messages, again.sources), (rendered.messages, rendered.sources));
            }
        }

        #[test]
        fn filling_is_one_pass(value in ".{0,30}") {
            prop_assert_eq!(fill("a{{x}}b{{y}}{{z}}", &[("x", &value), ("y", "{{x}}")]), format!("a{value}b{{{{x}}}}{{{{z}}}}"));
        }
    }

    #[test]
    fn a_plain_prompt_holds_the_brands_text_the_conversation_and_the_question() {
        let history = [
            PromptMessage::new(Role::System, "Be brief."),
            PromptMessage::new(Role::User, "Hi"),
            PromptMessage::new(Role::Assistant, "Hello."),
        ];
        let tokens = OpenAiTokens::for_model("gpt-4o");
        let rendered = contract(700).render_plain(&history, "How long?", 100, &*tokens).unwrap();
        let text: Vec<String> = rendered.messages.iter().map(|m| format!("<{}> {}", m.role.as_str(), m.content)).collect();
        insta::assert_snapshot!(text.join("\n"), @r"
        <system> You answer for Acme.

        Be brief.
        <user> Hi
        <assistant> Hello.
        <user> How long?
        ");
        assert_eq!((rendered.fingerprint, rendered.dropped_history), (contract(5).plain_fingerprint(), 0));
        // The oldest turn goes first; text and question stay.
        let short = contract(700).render_plain(&history, "How long?", rendered.prompt_tokens - 1, &*tokens).unwrap();
        assert_eq!((short.messages.len(), short.messages[1].content.as_str(), short.dropped_history), (3, "Hello.", 1));
        assert!(contract(700).render_plain(&history, "How long?", 10, &*tokens).is_err());
    }

    #[test]
    fn a_question_that_cannot_fit_is_refused() {
        let input = PromptInput { history: &[], question: &"word ".repeat(100), snippets: &[] };
        let error = contract(100).render(&input, 100, &*OpenAiTokens::for_model("gpt-4o")).unwrap_err();
        assert!(error.to_string().ends_with("but only 100 fit"), "{error}");
    }
}
