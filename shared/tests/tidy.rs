//! House rules, as tests.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use shared::testing::TestDb;
use sqlx::{AssertSqlSafe, Executor as _, SqlSafeStr as _};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every Rust file of ours: (path from the root, text).
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = ["shared", "api", "worker", "scripts"].map(|top| root().join(top)).into();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().replace('\\', "/");
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found.sort();
    found
}

/// The text before the file's unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\nmod ").next().unwrap()
}

fn is_test(name: &str) -> bool {
    name.contains("/tests/")
}

fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n{}", broken.join("\n"));
}

#[test]
fn sql_lives_in_stores() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|(name, _)| {
            let product = ["shared/src", "api/src", "worker/src"].iter().any(|top| name.starts_with(top));
            product
                && !name.ends_with("/store.rs")
                && name != "shared/src/db.rs"
                && !name.starts_with("shared/src/testing")
        })
        .filter(|(_, text)| {
            let code = without_tests(text);
            ["sqlx::query", "query_as(", "query_scalar(", "raw_sql(", "QueryBuilder"]
                .iter()
                .any(|call| code.contains(call))
        })
        .map(|(name, _)| name.clone())
        .collect();
    assert_none(&broken, "SQL belongs in a store.rs");
}

/// The text of a plain string literal whose opening quote has been read, as the compiler sees it.
fn literal(rest: &str) -> String {
    let mut text = String::new();
    let mut letters = rest.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return text,
            '\\' => match letters.next() {
                Some('n') => text.push('\n'),
                Some('\n') => while letters.next_if(|letter| letter.is_whitespace()).is_some() {},
                Some(escaped) => text.push(escaped),
                None => break,
            },
            other => text.push(other),
        }
    }
    panic!("a string literal does not end: {text}");
}

/// The statements that are written as one literal in a call of sqlx: (file, statement).
fn statements() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in sources() {
        let holds_sql = name.ends_with("/store.rs") || name == "shared/src/db.rs";
        // The harness has a schema of its own, for the floor that the product is measured against.
        if !holds_sql
            || name.starts_with("scripts/")
            || name.contains("/tests/")
            || name.starts_with("shared/src/testing")
        {
            continue;
        }
        for call in without_tests(&text).split("sqlx::query").skip(1) {
            let Some((head, arguments)) = call.split_once('(') else { continue };
            let is_query = ["", "_as", "_scalar"].contains(&head.split("::<").next().unwrap());
            if is_query && let Some(rest) = arguments.trim_start().strip_prefix('"') {
                found.push((name.clone(), literal(rest)));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_statement_fits_the_schema() {
    let statements = statements();
    assert!(statements.len() > 60, "only {} statements were found", statements.len());
    let db = TestDb::new().await;
    let admin = db.admin();
    let mut broken = Vec::new();
    for (name, statement) in &statements {
        if let Err(error) = admin.prepare(AssertSqlSafe(statement.clone()).into_sql_str()).await {
            broken.push(format!("{name}: {error}\n  {statement}"));
        }
    }
    assert_none(&broken, "a statement does not fit the migrated schema");
}

#[test]
fn every_file_says_what_it_is_for() {
    let broken: Vec<String> =
        sources().into_iter().filter(|(_, text)| !text.starts_with("//! ")).map(|(name, _)| name).collect();
    assert_none(&broken, "a file starts with //! and a sentence");
}

#[test]
fn files_stay_short() {
    let broken: Vec<String> = sources()
        .iter()
        .filter(|(name, _)| !is_test(name))
        .map(|(name, text)| (name, without_tests(text).lines().count()))
        .filter(|(_, lines)| *lines > 500)
        .map(|(name, lines)| format!("{name}: {lines}"))
        .collect();
    assert_none(&broken, "500 lines are the alarm; split by noun");
}

#[test]
fn lints_are_expected_not_allowed() {
    let allow = ["#[al", "low("].concat();
    let allow_all = ["#![al", "low("].concat();
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|(_, text)| text.contains(&allow) || text.contains(&allow_all))
        .map(|(name, _)| name)
        .collect();
    assert_none(&broken, "use #[expect(.., reason = ..)]");
}

#[test]
fn the_environment_is_read_by_config_alone() {
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|(name, text)| {
            let product = ["shared/src", "api/src", "worker/src"].iter().any(|top| name.starts_with(top));
            let excepted = name.starts_with("shared/src/config/") || name.starts_with("shared/src/testing");
            product
                && !excepted
                && ["env::var", "env::vars"].iter().any(|call| without_tests(text).contains(call))
        })
        .map(|(name, _)| name)
        .collect();
    assert_none(&broken, "variables are read in shared::config");
}

#[test]
fn shared_knows_no_http_server() {
    let manifest = fs::read_to_string(root().join("shared/Cargo.toml")).unwrap();
    for server in ["axum", "hyper", "tower", "utoipa"] {
        assert!(!manifest.contains(server), "shared must not depend on {server}");
    }
}

#[test]
fn env_example_is_complete() {
    let file = fs::read_to_string(root().join(".env.example")).unwrap_or_default();
    let wanted = shared::config::env_example();
    assert!(file == wanted, ".env.example differs from shared::config; it should be:\n{wanted}");
}
