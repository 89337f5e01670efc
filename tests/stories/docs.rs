//! What the documentation tells people to type is typed.

use super::support::groundtone;
use std::path::{Path, PathBuf};
use std::process::Command;

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// The commands of a page's `console` blocks, in order.
fn commands(page: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in page.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => inside = line == "```console",
            Some(command) if inside => found.push(command.to_owned()),
            _ => {}
        }
    }
    found
}

#[test]
fn the_commands_of_every_page_run_one_after_the_other() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = Vec::new();
    pages(&root.join("docs"), &mut found);
    let binary = Path::new(env!("CARGO_BIN_EXE_groundtone")).parent().unwrap();
    let path = format!("{}:{}", binary.display(), std::env::var("PATH").unwrap());
    let mut typed = 0;
    for page in found {
        let commands = commands(&std::fs::read_to_string(&page).unwrap());
        if commands.is_empty() {
            continue;
        }
        typed += commands.len();
        let folder = tempfile::tempdir().unwrap();
        let script = format!("set -euo pipefail\n{}\n", commands.join("\n"));
        let output = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder.path())
            .env("PATH", &path)
            .env("GROUNDTONE_OFFLINE", "1")
            .env("GROUNDTONE_TEST_KEY", "any")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}:\n{script}\n{}", page.display(), String::from_utf8_lossy(&output.stderr));
    }
    assert!(typed > 8, "only {typed} commands were found");
}

/// A link to a page of our own leads somewhere.
#[test]
fn links_between_pages_lead_somewhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut found = vec![root.join("README.md")];
    pages(&root.join("docs"), &mut found);
    for page in found {
        let text = std::fs::read_to_string(&page).unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") || link.starts_with('#') || link.contains(' ') {
                continue;
            }
            let target = page.parent().unwrap().join(link.split('#').next().unwrap());
            assert!(target.exists(), "{} links to {link}", page.display());
        }
    }
}

/// Every command and every flag that people see is described on its page.
#[test]
fn the_command_line_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let help = String::from_utf8(groundtone(folder.path(), &["--help"]).output().unwrap().stdout).unwrap();
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/command-line.md")).unwrap();
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    // A description that goes on in the next line is indented further.
    let names = commands.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
    for name in names.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help") {
        assert!(page.contains(&format!("`groundtone {name}")), "`groundtone {name}` is not on the page");
    }
}
