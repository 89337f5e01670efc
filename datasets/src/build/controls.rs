use crate::Error;
use crate::random::even;
use serde::{Deserialize, Serialize};

/// What a row shows and what it teaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RowKind {
    /// What retrieval finds for the question, untouched: byte for byte what serving sends.
    Served,
    /// The oracle, a chunk that holds the answer, is among the snippets for sure; the others are near misses.
    Oracle,
    /// Near misses only, and the answer all the same (RAFT's 1 - P): the model is to know it.
    Distractors,
    /// Near misses only, and the abstain text: the model is to say that it does not know.
    NoAnswer,
    /// No sources at all: form alone.
    Plain,
}

impl RowKind {
    /// Its name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Served => "served",
            Self::Oracle => "oracle",
            Self::Distractors => "distractors",
            Self::NoAnswer => "no_answer",
            Self::Plain => "plain",
        }
    }
}

/// What becomes of a served row whose snippets do not hold the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// It stays, and is counted.
    #[default]
    Keep,
    /// Its answer becomes the abstain text, where the snippets really do not support the answer; else it is dropped.
    Abstain,
    /// It is left out, and named.
    Drop,
}

/// In which order snippets are numbered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// As retrieval ranks them; what serving does.
    #[default]
    Ranked,
    /// At random, so that the place of the oracle teaches nothing.
    Shuffled,
}

/// Markers in the answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CitationStyle {
    /// The source's number behind every sentence that rests on one; markers of the example itself name other sources and are taken out.
    #[default]
    Write,
    /// The answer as it is.
    Keep,
}

/// How an answer is built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnswerStyle {
    /// The answer.
    #[default]
    Answer,
    /// The sentence of each cited source that says it, word for word, and then the answer.
    QuoteThenAnswer,
}

/// What rows look like. The default is served rows with citations: nothing that serving would not do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Controls {
    /// Snippets in a row; `None` is what serving retrieves.
    pub snippets: Option<usize>,
    /// RAFT's P: the share of the other rows that are [`RowKind::Oracle`], the rest being [`RowKind::Distractors`]. `None` makes them [`RowKind::Served`].
    pub oracle_share: Option<f64>,
    /// Share of all rows that are [`RowKind::NoAnswer`].
    pub no_answer_share: f64,
    /// Share of all rows that are [`RowKind::Plain`].
    pub plain_share: f64,
    /// Served rows without the answer.
    pub missed: Missed,
    /// Order of the snippets.
    pub order: Order,
    /// Markers.
    pub citations: CitationStyle,
    /// Quotes.
    pub style: AnswerStyle,
}

impl Controls {
    /// Shares are shares, and leave room for each other.
    pub fn check(&self) -> Result<(), Error> {
        let shares = [
            ("oracle share", self.oracle_share.unwrap_or(0.0)),
            ("no-answer share", self.no_answer_share),
            ("plain share", self.plain_share),
        ];
        if let Some((name, share)) = shares.iter().find(|(_, share)| !(0.0..=1.0).contains(share)) {
            return Err(Error::Controls(format!("the {name} is {share}, not between 0 and 1")));
        }
        if self.no_answer_share + self.plain_share > 1.0 + 1e-9 {
            return Err(Error::Controls("the no-answer share and the plain share are more than all rows".to_owned()));
        }
        if self.snippets == Some(0) {
            return Err(Error::Controls("no snippets at all is what plain rows are for".to_owned()));
        }
        if self.style == AnswerStyle::QuoteThenAnswer && self.citations == CitationStyle::Keep {
            return Err(Error::Controls("quotes carry the numbers of their sources, so they need written citations".to_owned()));
        }
        Ok(())
    }

    /// The kind of the `place`th example. A function of seed and place alone; every prefix has the shares as nearly as whole rows allow.
    pub fn kind(&self, seed: u64, place: u64) -> RowKind {
        let at = even(seed, place);
        let (plain, no_answer) = (self.plain_share, self.plain_share + self.no_answer_share);
        if at < plain {
            return RowKind::Plain;
        }
        if at < no_answer {
            return RowKind::NoAnswer;
        }
        match self.oracle_share {
            None => RowKind::Served,
            Some(share) if at < no_answer + (1.0 - no_answer) * share => RowKind::Oracle,
            Some(_) => RowKind::Distractors,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_prefix_has_the_shares(seed in any::<u64>(), oracle in 0.0f64..=1.0, no_answer in 0.0f64..0.5, plain in 0.0f64..0.5, rows in 20u64..400) {
            let controls = Controls { oracle_share: Some(oracle), no_answer_share: no_answer, plain_share: plain, ..Controls::default() };
            prop_assert!(controls.check().is_ok());
            let share = |kind: RowKind| (0..rows).filter(|&place| controls.kind(seed, place) == kind).count() as f64 / rows as f64;
            let rest = 1.0 - no_answer - plain;
            // The discrepancy of multiples of the golden ratio is below 3.3 ln(n) / n for these lengths.
            let near = |kind, wanted: f64| (share(kind) - wanted).abs() < 3.3 * (rows as f64).ln() / rows as f64;
            prop_assert!(near(RowKind::Plain, plain) && near(RowKind::NoAnswer, no_answer));
            prop_assert!(near(RowKind::Oracle, rest * oracle) && near(RowKind::Distractors, rest * (1.0 - oracle)));
        }
    }

    #[test]
    fn shares_that_cannot_be_are_refused() {
        let wrong = |controls: Controls| controls.check().unwrap_err().to_string();
        insta::assert_snapshot!(wrong(Controls { oracle_share: Some(1.2), ..Controls::default() }), @"the oracle share is 1.2, not between 0 and 1");
        insta::assert_snapshot!(
            wrong(Controls { no_answer_share: 0.6, plain_share: 0.5, ..Controls::default() }),
            @"the no-answer share and the plain share are more than all rows"
        );
    }
}
