//! Messages one after the other: who may speak when, what is learned, and whether calls of tools are answered.

use super::check::Line;
use super::json::{Kind, Next, Parsed};
use super::rules::Rule;
use super::tools::Call;
use super::{Method, Target};
use std::ops::Range;

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    System,
    Developer,
    User,
    Assistant,
    Tool,
    Function,
}

/// Where messages stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The row itself, whose last message is learned.
    Row,
    /// What a preference row's outputs answer.
    Input,
    /// An output of a preference row, or a completion.
    Output,
}

/// One message, as far as its neighbours need it.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) at: usize,
    /// `None` where it could not be read.
    pub(super) role: Option<Role>,
    /// Not `weight: 0`.
    pub(super) learned: bool,
    /// The bytes of the content.
    pub(super) content: Range<usize>,
    /// The call that a tool's message answers.
    pub(super) answers: Option<Range<usize>>,
    /// Its calls, as a part of [`Conversation::calls`].
    pub(super) calls: Range<usize>,
}

#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) at: usize,
    pub(super) turns: Vec<Turn>,
    pub(super) calls: Vec<Call>,
    /// Whether its turns are known.
    read: bool,
}

impl Conversation {
    /// Messages that were not read, because they do not belong here or are broken.
    pub(super) fn unread(at: usize) -> Self {
        Self { at, turns: Vec::new(), calls: Vec::new(), read: false }
    }
}

impl Line<'_, '_, '_> {
    /// Reads a list of messages. `None` where it is no list.
    pub(super) fn messages(&mut self, next: Next, place: Place) -> Parsed<Option<Conversation>> {
        let mut talk = Conversation { read: true, ..Conversation::unread(next.at) };
        if next.kind != Kind::Array {
            self.cursor.skip(next)?;
            self.report(Rule::MessagesType, next.at, || format!("the messages are {}", next.kind.name()));
            talk.read = false;
            return Ok(Some(talk));
        }
        let mut item = self.cursor.first_item()?;
        while let Some(message) = item {
            self.message(message, place, &mut talk)?;
            item = self.cursor.next_item()?;
        }
        Ok(Some(talk))
    }

    /// What can only be said of the whole.
    pub(super) fn conversation(&mut self, talk: &Conversation, place: Place) {
        if !talk.read {
            return;
        }
        if talk.turns.is_empty() {
            let rule =
                if place == Place::Output && self.checker.options.method == Method::Dpo { Rule::OutputType } else { Rule::MessagesEmpty };
            self.report(rule, talk.at, || "the list is empty".to_owned());
            return;
        }
        // One message whose role is unknown makes the rest a guess.
        if talk.turns.iter().any(|turn| turn.role.is_none()) {
            return;
        }
        match place {
            Place::Row => self.learned(talk),
            Place::Input => self.asked(talk),
            Place::Output => self.answered(talk),
        }
        if place != Place::Output {
            self.order(talk);
        }
        if self.checker.options.target.follows_tool_calls() && place != Place::Output {
            self.tool_answers(talk);
        }
    }

    fn learned(&mut self, talk: &Conversation) {
        let assistant = |turn: &&Turn| turn.role == Some(Role::Assistant);
        let mut replies = talk.turns.iter().filter(assistant).peekable();
        if replies.peek().is_none() {
            self.report(Rule::NoAssistant, talk.at, || "nobody answers".to_owned());
            return;
        }
        if !replies.any(|turn| turn.learned) {
            self.report(Rule::NoLearnedReply, talk.at, || "no reply is learned".to_owned());
        }
        if let Some(last) = talk.turns.last().filter(|turn| !assistant(turn)) {
            self.report(Rule::LastNotAssistant, last.at, || "the conversation ends here without an answer".to_owned());
        }
        self.somebody_asks(talk);
    }

    fn somebody_asks(&mut self, talk: &Conversation) {
        if !talk.turns.iter().any(|turn| turn.role == Some(Role::User)) {
            self.report(Rule::NoUser, talk.at, || "nobody asks".to_owned());
        }
    }

    fn asked(&mut self, talk: &Conversation) {
        self.somebody_asks(talk);
        if let Some(last) = talk.turns.last().filter(|turn| turn.role == Some(Role::Assistant)) {
            self.report(Rule::InputEnds, last.at, || "the input ends with the assistant's own message".to_owned());
        }
    }

    fn answered(&mut self, talk: &Conversation) {
        for turn in &talk.turns {
            if turn.role != Some(Role::Assistant) && (talk.turns.len() == 1 || self.checker.options.target != Target::Trl) {
                self.report(Rule::OutputRole, turn.at, || "an output is the assistant's".to_owned());
            }
        }
    }

    fn order(&mut self, talk: &Conversation) {
        let target = self.checker.options.target;
        if target.wants_system_or_user_first()
            && let Some(first) = talk.turns.first().filter(|turn| !matches!(turn.role, Some(Role::System | Role::Developer | Role::User)))
        {
            self.report(Rule::FirstRole, first.at, || format!("{} wants a system or user message first", target.as_str()));
        }
        for (at, pair) in talk.turns.windows(2).enumerate() {
            let (before, turn) = (pair[0].role, &pair[1]);
            if target == Target::Mistral
                && before == Some(Role::Tool)
                && turn.role != Some(Role::Assistant)
                && turn.role != Some(Role::Tool)
            {
                self.report(Rule::Alternation, turn.at, || "the assistant's turn comes behind a tool's".to_owned());
            }
            if !target.wants_turns() {
                continue;
            }
            match (before, turn.role) {
                (_, Some(Role::System | Role::Developer)) => {
                    self.report(Rule::SystemLate, turn.at, || "only the first message may be the system's".to_owned());
                }
                (Some(Role::System | Role::Developer), Some(Role::Assistant)) if at == 0 => {
                    self.report(Rule::Alternation, turn.at, || "the user speaks first".to_owned());
                }
                (Some(one), Some(other)) if one == other && matches!(one, Role::User | Role::Assistant) => {
                    self.report(Rule::Alternation, turn.at, || "the same side speaks again".to_owned());
                }
                (Some(Role::Tool), Some(Role::User)) => {
                    self.report(Rule::Alternation, turn.at, || "the assistant's turn comes behind a tool's".to_owned());
                }
                _ => {}
            }
        }
    }

    fn tool_answers(&mut self, talk: &Conversation) {
        let mut open: Vec<&Call> = Vec::new();
        for turn in &talk.turns {
            if turn.role == Some(Role::Tool) {
                let Some(id) = &turn.answers else {
                    // It has been reported; some call is the one that it answers.
                    open.pop();
                    continue;
                };
                match open.iter().position(|call| call.id.as_ref().is_some_and(|known| self.slice(known) == self.slice(id))) {
                    Some(at) => {
                        open.remove(at);
                    }
                    None => {
                        let text = String::from_utf8_lossy(self.slice(id));
                        self.report(Rule::ToolCallIdUnknown, id.start - 1, || format!("no open call has the id `{text}`"));
                    }
                }
                continue;
            }
            for call in open.drain(..) {
                self.report(Rule::ToolAnswerMissing, call.at, || "the conversation goes on without this call's answer".to_owned());
            }
            // A call without an id has been reported already.
            open.extend(talk.calls[turn.calls.clone()].iter().filter(|call| call.id.is_some()));
        }
    }
}
