//! What a question is answered from: the follow-up resolved, the collections searched, the gate asked.

use crate::{Error, EvidenceScore, Question};
use groundtone_retrieval::{Basis, Condense, CondenseLimits, Request, Resolved, Retriever, Verdict, is_pleasantry, resolve};
use groundtone_types::{Collection, ErrorKind, Snippet};
use std::sync::Arc;

/// What was found for a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// What was searched for, and who made it of the question.
    pub resolved: Resolved,
    /// Best first.
    pub snippets: Vec<Snippet>,
    /// What the gate saw; `None` where there is no gate, or it does not apply to this question.
    pub evidence: Option<EvidenceScore>,
    /// Whether there is enough to ask a model.
    pub answerable: bool,
}

impl Found {
    /// Where nothing is looked up.
    pub(crate) fn nothing(question: &Question) -> Result<Self, Error> {
        let (asked, _) = question.split()?;
        let resolved = Resolved { question: asked.to_owned(), basis: Basis::Asked };
        Ok(Self { resolved, snippets: Vec::new(), evidence: None, answerable: true })
    }

    /// What was searched for, where it is not what was asked.
    pub fn rewritten(&self) -> Option<String> {
        (self.resolved.basis != Basis::Asked).then(|| self.resolved.question.clone())
    }
}

/// A model for follow-ups where the rules are unsure, and what it may cost.
pub(crate) type Condenser = Option<(Arc<dyn Condense>, CondenseLimits)>;

/// What a question is searched with: itself, or what a follow-up means.
pub(crate) async fn resolved(question: &Question, condenser: &Condenser) -> Result<Resolved, Error> {
    let (asked, history) = question.split()?;
    let (model, limits) = match condenser {
        Some((model, limits)) => (Some(&**model), *limits),
        None => (None, CondenseLimits::default()),
    };
    Ok(resolve(asked, history, model, limits).await)
}

/// The best snippets of all the collections that the question names, and whether they are worth an answer.
///
/// The gate does not apply where something else than documents may hold the answer: tools, a picture, a tool's answer; where the client wants a format of its own,
/// because the abstain text has none; and to pleasantries, which are no questions.
pub(crate) async fn find(retriever: &Retriever, own: &Collection, question: &Question, condenser: &Condenser) -> Result<Found, Error> {
    let resolved = resolved(question, condenser).await?;
    let request = Request { top_k: question.most_snippets, ..Request::new(&resolved.question) };
    let own = std::slice::from_ref(own);
    let collections = if question.collections.is_empty() { own } else { &question.collections };
    let (mut snippets, mut best): (Vec<Snippet>, Option<Verdict>) = (Vec::new(), None);
    for collection in collections {
        match retriever.search(&question.tenant, collection, &request).await {
            Ok(found) => {
                // One collection that holds the answer is enough.
                best = match (best, found.verdict) {
                    (Some(a), Some(b)) => Some(if b.probability > a.probability { b } else { a }),
                    (a, b) => a.or(b),
                };
                snippets.extend(found.snippets());
            }
            // A vector store without a file has no collection yet.
            Err(error) if !question.collections.is_empty() && error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    if collections.len() > 1 {
        snippets.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id)));
    }
    snippets.truncate(question.most_snippets.unwrap_or(retriever.settings().top_k));
    let gate = retriever.gate().filter(|_| question.extras.is_plain() && !is_pleasantry(&resolved.question));
    let verdict = gate.map(|gate| best.unwrap_or_else(|| gate.judge(&Default::default(), snippets.len())));
    let evidence = gate.zip(verdict).map(|(gate, verdict)| EvidenceScore { score: verdict.probability, threshold: gate.threshold });
    Ok(Found { resolved, snippets, evidence, answerable: verdict.is_none_or(|verdict| verdict.answerable) })
}
