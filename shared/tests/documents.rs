//! The documents, as far as a program can read them: links lead somewhere, files and variables that are named exist.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Words in capitals that are neither variables nor mistakes: codes of warnings, constants of the code, variables of others.
const NO_VARIABLES: &[&str] =
    &["AWAITING_APPROVAL", "BASE_URL", "CONTEXT_NEAR_LIMIT", "MODEL_FALLBACK", "SOLO_FROM_TAKEOVERS"];
/// What a file's path from the root begins with.
const TOP: &[&str] = &["shared/", "api/", "worker/", "scripts/", "migrations/", "docs/", "deploy/", ".ci/"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every document: its path from the root, and its text.
fn documents() -> Vec<(PathBuf, String)> {
    let mut found: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "migrations/README.md"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "the documents were not found");
    found.sort();
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(root().join(path)).unwrap())).collect()
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    assert!(!inside, "a block of code does not end");
    prose
}

/// What stands between backticks.
fn code_spans(prose: &str) -> impl Iterator<Item = &str> {
    prose.split('`').skip(1).step_by(2)
}

fn assert_none(broken: &BTreeSet<String>, rule: &str) {
    let list: Vec<&str> = broken.iter().map(String::as_str).collect();
    assert!(list.is_empty(), "{rule}:\n{}", list.join("\n"));
}

#[test]
fn links_lead_somewhere() {
    let mut broken = BTreeSet::new();
    for (path, text) in documents() {
        let prose = prose(&text);
        let targets = prose.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.contains("://") && !target.starts_with('#')) {
            let file = target.split('#').next().unwrap();
            if !root().join(path.parent().unwrap()).join(file).exists() {
                broken.insert(format!("{}: {target}", path.display()));
            }
        }
    }
    assert_none(&broken, "links to nothing");
}

#[test]
fn files_that_are_named_exist() {
    let mut broken = BTreeSet::new();
    let mut seen = 0;
    for (path, text) in documents() {
        let prose = prose(&text);
        for word in code_spans(&prose).filter_map(|span| span.split_whitespace().next()) {
            let name = word.trim_start_matches("./").trim_end_matches([',', ':', ';', '.']);
            if TOP.iter().any(|top| name.starts_with(top)) {
                seen += 1;
                if !root().join(name).exists() {
                    broken.insert(format!("{}: {name}", path.display()));
                }
            }
        }
    }
    assert!(seen > 50, "only {seen} files were found in the documents");
    assert_none(&broken, "files that do not exist");
}

#[test]
fn variables_that_are_named_exist() {
    let known: BTreeSet<&str> = shared::config::GROUPS
        .iter()
        .flat_map(|group| group.variables)
        .map(|variable| variable.name)
        .chain(shared::flags::NAMES.iter().copied())
        .collect();
    let is_letter = |letter: char| letter.is_ascii_uppercase() || letter.is_ascii_digit() || letter == '_';
    let mut broken = BTreeSet::new();
    for (path, text) in documents() {
        let prose = prose(&text);
        for word in code_spans(&prose).flat_map(|span| span.split(|letter| !is_letter(letter))) {
            let is_name = word.contains('_') && word.starts_with(|letter: char| letter.is_ascii_uppercase());
            if is_name && word.len() > 3 && !known.contains(word) && !NO_VARIABLES.contains(&word) {
                broken.insert(format!("{}: {word}", path.display()));
            }
        }
    }
    assert_none(&broken, "variables that shared::config does not know");
}

/// What PromQL itself and our labels are called.
const NO_METRICS: &[&str] =
    &["event_type", "histogram_quantile", "passed_over", "rate_interval", "tool_error"];

/// The expressions of dashboards and alert rules, with their files.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join("deploy/grafana")).unwrap() {
        let path = entry.unwrap().path();
        let board: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        for target in
            board["panels"].as_array().unwrap().iter().flat_map(|panel| panel["targets"].as_array().unwrap())
        {
            found.push((name.clone(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    let rules = fs::read_to_string(root().join("deploy/prometheus/alerts.yaml")).unwrap();
    let mut inside = false;
    for line in rules.lines() {
        let text = line.trim();
        inside = text.starts_with("expr:")
            || (inside && !text.starts_with("for:") && !text.starts_with("labels:"));
        if inside {
            found.push(("alerts.yaml".to_owned(), text.trim_start_matches("expr:").to_owned()));
        }
    }
    found
}

#[test]
fn dashboards_and_alerts_ask_for_metrics_that_there_are() {
    let operations = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let prose = prose(&operations);
    let known: BTreeSet<&str> = code_spans(&prose).map(|span| span.split('{').next().unwrap()).collect();
    let expressions = expressions();
    assert!(expressions.len() > 40, "only {} expressions were found", expressions.len());
    let mut broken = BTreeSet::new();
    for (file, expression) in &expressions {
        let is_part = |letter: char| letter.is_ascii_lowercase() || letter == '_';
        for word in expression.split(|letter| !is_part(letter)).filter(|word| word.contains('_')) {
            let metric = word.trim_matches('_').trim_end_matches("_bucket");
            if !known.contains(metric) && !NO_METRICS.contains(&metric) {
                broken.insert(format!("{file}: {metric}"));
            }
        }
    }
    assert_none(&broken, "metrics that docs/operations.md does not list");
}

#[test]
fn every_decision_has_its_parts() {
    let mut broken = BTreeSet::new();
    for (path, text) in documents() {
        if path.starts_with("docs/adr") {
            for part in ["\n## Context\n", "\n## Decision\n", "\n## Consequences\n"] {
                if !text.contains(part) {
                    broken.insert(format!("{}: {}", path.display(), part.trim()));
                }
            }
        }
    }
    assert_none(&broken, "a decision has context, decision and consequences");
}
