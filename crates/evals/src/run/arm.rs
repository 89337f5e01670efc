use crate::Error;
use crate::case::CaseSet;
use crate::decide::Role;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Arms of one run at most.
const MOST_ARMS: usize = 20;

/// An example in an arm's prompt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shot {
    /// What is asked.
    pub question: String,
    /// How it should be answered.
    pub answer: String,
}

/// An arm: whom to ask, and with which words around the question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmSpec {
    /// Its name in the report.
    pub name: String,
    /// What it is.
    pub role: Role,
    /// The model that is named to the server.
    pub model: String,
    /// Another server; the Groundtone under test where `None`.
    pub url: Option<String>,
    /// Which variable holds that server's key.
    pub api_key_env: String,
    /// A system message, sent before the conversation.
    pub prompt: Option<String>,
    /// Examples, sent as earlier turns.
    pub shots: Vec<Shot>,
    /// Most tokens of an answer; the server's own limit where `None`.
    pub max_tokens: Option<u32>,
}

impl Role {
    /// What an arm of this name usually is; `None` where the name says nothing.
    pub fn of_name(name: &str) -> Option<Self> {
        let name = name.rsplit([':', '/']).next().unwrap_or(name);
        match name {
            "prompted" => Some(Self::Prompted),
            "few-shot" | "few_shot" => Some(Self::FewShot),
            "rag" => Some(Self::Rag),
            "tuned" => Some(Self::Tuned),
            "tuned-rag" | "tuned_rag" => Some(Self::TunedRag),
            _ => None,
        }
    }
}

impl ArmSpec {
    /// The arm of a bare name: a variant of the assistant (`rag` is `ASSISTANT:rag`), or a model that the server has under this name (`ft:...`).
    pub fn of_name(name: &str, assistant: &str) -> Self {
        let variant = !name.contains(':') && Role::of_name(name).is_some();
        // Few-shot is the prompted variant with examples from the client.
        let suffix = if name == "few-shot" { "prompted" } else { name };
        Self {
            name: name.to_owned(),
            role: Role::of_name(name).unwrap_or(if name.starts_with("ft:") { Role::Tuned } else { Role::Prompted }),
            model: if variant { format!("{assistant}:{suffix}") } else { name.to_owned() },
            url: None,
            api_key_env: String::new(),
            prompt: None,
            shots: Vec::new(),
            max_tokens: None,
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "arm")]
    arms: Vec<Line>,
}

/// One `[[arm]]`; paths are relative to the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    name: String,
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    model: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    api_key_env: String,
    #[serde(default)]
    prompt: Option<PathBuf>,
    #[serde(default)]
    examples: Option<PathBuf>,
    #[serde(default)]
    shots: Option<usize>,
    #[serde(default)]
    max_tokens: Option<u32>,
}

/// Reads a file of arms: `[[arm]]` with `name`, and what differs from the arm of that name: `role`, `model`, `url`, `api_key_env`, `prompt` (a text file), `examples` (a set) and how
/// many of them are `shots`, `max_tokens`.
pub fn read_arms(path: &Path, assistant: &str) -> Result<Vec<ArmSpec>, Error> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::File { path: path.to_owned(), reason: error.to_string() })?;
    let wrong = |reason: String| Error::Rules { path: path.to_owned(), reason };
    let file: File = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    if file.arms.len() > MOST_ARMS {
        return Err(wrong(format!("has {} arms; at most {MOST_ARMS} are compared at once", file.arms.len())));
    }
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut arms: Vec<ArmSpec> = Vec::new();
    for line in file.arms {
        if arms.iter().any(|arm| arm.name == line.name) {
            return Err(wrong(format!("has two arms named `{}`", line.name)));
        }
        arms.push(line.arm(folder, assistant)?);
    }
    Ok(arms)
}

impl Line {
    fn arm(self, folder: &Path, assistant: &str) -> Result<ArmSpec, Error> {
        let mut arm = ArmSpec::of_name(&self.name, assistant);
        arm.role = self.role.unwrap_or(arm.role);
        arm.model = self.model.unwrap_or(arm.model);
        (arm.url, arm.api_key_env, arm.max_tokens) = (self.url, self.api_key_env, self.max_tokens);
        if let Some(prompt) = self.prompt {
            let path = folder.join(prompt);
            let text = std::fs::read_to_string(&path).map_err(|error| Error::File { path, reason: error.to_string() })?;
            arm.prompt = Some(text.trim().to_owned());
        }
        if let Some(examples) = self.examples {
            arm.shots = Shot::read(&folder.join(examples), self.shots.unwrap_or(usize::MAX))?;
        }
        Ok(arm)
    }
}

impl Shot {
    /// The first rows of a set that have an answer or a label.
    pub fn read(path: &Path, most: usize) -> Result<Vec<Self>, Error> {
        let cases = CaseSet::read(path)?.cases.into_iter();
        let shots =
            cases.filter_map(|case| Some(Self { answer: case.answer.clone().or_else(|| case.label.clone())?, question: case.question }));
        Ok(shots.take(most).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arms_are_named_or_described() {
        let named = |name: &str| {
            let arm = ArmSpec::of_name(name, "shop");
            (arm.model, arm.role)
        };
        assert_eq!(named("rag"), ("shop:rag".into(), Role::Rag));
        assert_eq!(named("few-shot"), ("shop:prompted".into(), Role::FewShot));
        assert_eq!(named("ft:smollm2:shop::1"), ("ft:smollm2:shop::1".into(), Role::Tuned));
        assert_eq!(named("gpt-4o-mini"), ("gpt-4o-mini".into(), Role::Prompted));
        let folder = tempfile::tempdir().unwrap();
        let file = |text: &str| {
            let path = folder.path().join("arms.toml");
            std::fs::write(&path, text).unwrap();
            read_arms(&path, "shop").map_err(|error| error.to_string().replace(&folder.path().display().to_string(), "FOLDER"))
        };
        std::fs::write(folder.path().join("long.md"), "Sort the ticket.\n").unwrap();
        std::fs::write(
            folder.path().join("shots.jsonl"),
            "{\"question\": \"a\", \"answer\": \"b\"}\n{\"text\": \"c\", \"label\": \"d\"}\n{\"text\": \"e\"}\n",
        )
        .unwrap();
        let arms = file("[[arm]]\nname = \"bloated\"\nrole = \"few_shot\"\nmodel = \"shop:prompted\"\nprompt = \"long.md\"\nexamples = \"shots.jsonl\"\nshots = 2\n").unwrap();
        assert_eq!((arms[0].role, arms[0].prompt.as_deref(), arms[0].shots.len()), (Role::FewShot, Some("Sort the ticket."), 2));
        assert_eq!(arms[0].shots[1], Shot { question: "c".into(), answer: "d".into() });
        insta::assert_snapshot!(file("[[arm]]\nname = \"a\"\n[[arm]]\nname = \"a\"\n").unwrap_err(), @"FOLDER/arms.toml: has two arms named `a`");
        assert!(file("[[arm]]\nname = \"a\"\nmodle = \"x\"\n").unwrap_err().contains("modle"));
    }
}
