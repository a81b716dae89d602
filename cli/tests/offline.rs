//! Commands that ask Consul nothing, and the process itself: its arguments, codes and streams.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use std::process::{Command, Output};

use common::*;
use zsha::Exit;
use zsha_runtime::store::MemoryStore;

/// The binary, with an environment of its own and an address where nobody listens.
fn process(words: &[&str]) -> Output {
    process_with(&[], words)
}

/// The same, with more in its environment.
fn process_with(environment: &[(&str, &str)], words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_zsha"))
        .args(words)
        .env_clear()
        .env("CONSUL_HTTP_ADDR", "127.0.0.1:1")
        .envs(environment.iter().copied())
        .output()
        .unwrap()
}

/// The text that the command prints on stderr.
fn said(environment: &[(&str, &str)], words: &[&str]) -> String {
    String::from_utf8(process_with(environment, words).stderr).unwrap()
}

fn code(words: &[&str]) -> Option<i32> {
    process(words).status.code()
}

#[tokio::test]
async fn a_good_document_passes_and_a_bad_one_is_explained_with_its_line() {
    let ran = zsha(MemoryStore::new(), &document(8), &["check-config", "-"]).await;
    assert_eq!((ran.exit, ran.out.as_str()), (Exit::Success, "config file check pass\n"));
    let bad = document(2).replace(",", ",\n");
    let ran = zsha(MemoryStore::new(), &bad, &["check-config", "-"]).await;
    insta::assert_snapshot!("check_config_bad", ran.transcript());
    let ran = zsha(MemoryStore::new(), &bad, &["check-config", "-", "-o", "json"]).await;
    assert_eq!((ran.exit, ran.json()["kind"].as_str()), (Exit::Invalid, Some("DiagnosticList")));
}

#[tokio::test]
async fn a_sample_is_written_where_the_old_one_was_and_passes_its_own_check() {
    let folder = tempfile::tempdir().unwrap();
    for (image_type, name) in [("FileConf", "a.json"), ("CephConf", "b.json"), ("FileConf", "c.yaml")] {
        let path = folder.path().join(name);
        let path = path.to_str().unwrap();
        let ran = zsha(MemoryStore::new(), "", &["config-sample", image_type, "-o", path]).await;
        assert_eq!(ran.out, format!("output config json file to {path}\n"));
        let ran = zsha(MemoryStore::new(), "", &["check-config", path]).await;
        assert_eq!(ran.out, "config file check pass\n", "{ran:?}");
    }
    let printed = zsha(MemoryStore::new(), "", &["config-sample", "FileConf", "--stdout"]).await;
    assert!(printed.out.starts_with('{'), "{}", printed.out);
}

#[test]
fn a_sample_is_never_written_through_a_link() {
    let folder = tempfile::tempdir().unwrap();
    let (link, victim) = (folder.path().join("sample.json"), folder.path().join("victim"));
    std::fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, &link).unwrap();
    assert_eq!(code(&["config-sample", "FileConf", "-o", link.to_str().unwrap()]), Some(0));
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2, "nothing left beside it");
}

#[test]
fn the_codes_of_the_process_are_those_of_the_table() {
    assert_eq!(code(&["help", "exit-codes"]), Some(0));
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["frobnicate"]), Some(2));
    assert_eq!(code(&["help", "frobnicate"]), Some(2));
    assert_eq!(code(&["diff"]), Some(2));
    assert_eq!(code(&["diff", "-f", "/nonexistent"]), Some(2), "a failure of diff is never 1");
    assert_eq!(code(&["diff", "--cluster", "prod", "-f", "/dev/null"]), Some(4));
    assert_eq!(code(&["status", "--cluster", "prod"]), Some(7));
    assert_eq!(code(&["status", "--consul", "ftp://x"]), Some(2));
    assert_eq!(code(&["get", "--token-file", "/nonexistent"]), Some(2));
}

#[test]
fn a_variable_that_is_empty_is_one_that_is_not_set() {
    let names = [
        "ZSHA_CLUSTER",
        "CONSUL_HTTP_TOKEN_FILE",
        "CONSUL_HTTP_TOKEN",
        "CONSUL_HTTP_SSL",
        "CONSUL_CACERT",
        "CONSUL_CAPATH",
        "CONSUL_TLS_SERVER_NAME",
        "CONSUL_CLIENT_CERT",
        "CONSUL_CLIENT_KEY",
    ];
    let text = said(&names.map(|name| (name, "")), &["status", "--cluster", "prod"]);
    assert!(text.contains("http://127.0.0.1:1: "), "{text}");
    let text = said(&[("CONSUL_HTTP_ADDR", "")], &["status", "--cluster", "prod"]);
    assert!(text.contains("http://127.0.0.1:8500: "), "{text}");
}

#[test]
fn a_token_in_the_environment_is_refused_instead_of_ignored() {
    let token = ("CONSUL_HTTP_TOKEN", "secret");
    let done = process_with(&[token], &["status", "--cluster", "prod"]);
    let text = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(2));
    assert!(text.contains("CONSUL_HTTP_TOKEN_FILE") && !text.contains("secret"), "{text}");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "token").unwrap();
    let with_a_file = ["status", "--cluster", "prod", "--token-file", file.path().to_str().unwrap()];
    assert_eq!(process_with(&[token], &with_a_file).status.code(), Some(7));
    assert_eq!(
        process_with(&[token], &["schema"]).status.code(),
        Some(0),
        "what asks Consul nothing needs none"
    );
}

#[test]
fn a_variable_of_consuls_that_is_not_obeyed_is_refused_instead_of_ignored() {
    let status = ["status", "--cluster", "prod"];
    for (variable, value) in [
        ("CONSUL_HTTP_SSL_VERIFY", "false"),
        ("CONSUL_CAPATH", "/etc/ssl"),
        ("CONSUL_HTTP_AUTH", "ann:secret"),
        ("CONSUL_NAMESPACE", "east"),
    ] {
        let done = process_with(&[(variable, value)], &status);
        let text = String::from_utf8(done.stderr).unwrap();
        assert_eq!(done.status.code(), Some(2), "{text}");
        assert!(text.contains(variable) && text.contains("hint: ") && !text.contains("secret"), "{text}");
        assert_eq!(process_with(&[(variable, value)], &["schema"]).status.code(), Some(0));
    }
    assert!(said(&[("CONSUL_HTTP_SSL_VERIFY", "true")], &status).contains("http://127.0.0.1:1: "));
    assert_eq!(
        process_with(&[("CONSUL_TLS_SERVER_NAME", "server.dc1.consul")], &status).status.code(),
        Some(7)
    );
    let text = said(&[("CONSUL_TLS_SERVER_NAME", "a b")], &status);
    assert!(text.contains("'a b' is no name that a certificate could bear"), "{text}");
}

#[test]
fn an_address_without_a_scheme_is_https_where_the_environment_says_so() {
    let ssl = ("CONSUL_HTTP_SSL", "true");
    let status = ["status", "--cluster", "prod"];
    assert!(said(&[ssl], &status).contains("https://127.0.0.1:1: "), "{}", said(&[ssl], &status));
    let text = said(&[ssl, ("CONSUL_HTTP_ADDR", "")], &status);
    assert!(text.contains("https://127.0.0.1:8500: "), "{text}");
    let text = said(&[ssl, ("CONSUL_HTTP_ADDR", "http://127.0.0.1:1")], &status);
    assert!(text.contains("http://127.0.0.1:1: "), "{text}");
}

#[test]
fn a_document_for_another_cluster_is_refused_where_no_store_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.json");
    std::fs::write(&file, document(8)).unwrap();
    let file = file.to_str().unwrap();
    let words = |cluster: &'static str| ["apply", "--dry-run=client", "--cluster", cluster, "-f", file];
    assert_eq!(code(&words("prod")), Some(0));
    assert_eq!(code(&words("other")), Some(2));
    let mut old: serde_json::Value = serde_json::from_str(&document(8)).unwrap();
    for list in ["DNS", "ChronyServers"] {
        old["spec"][list] = serde_json::json!([]);
    }
    std::fs::write(file, old["spec"].to_string()).unwrap();
    let done = process(&words("other"));
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "hacluster.zsha.io/other valid (dry run)\n");
}

#[tokio::test]
async fn a_form_of_output_is_no_file_to_write_a_sample_to() {
    for form in ["json", "yaml", "table", "wide", "name"] {
        let ran = zsha(MemoryStore::new(), "", &["config-sample", "FileConf", "-o", form]).await;
        assert_eq!((ran.exit, ran.out.as_str()), (Exit::Usage, ""), "{form}");
        assert!(ran.err.contains(&format!("-o ./{form}")), "{}", ran.err);
        assert!(!std::path::Path::new(form).exists());
    }
}

#[test]
fn a_wrong_command_line_is_told_as_json_where_json_was_asked_for() {
    let done = process(&["status", "--frobnicate", "-o", "json"]);
    let error: serde_json::Value = serde_json::from_slice(&done.stderr).unwrap();
    assert_eq!(error["exitCode"], 2);
}

#[test]
fn the_version_has_the_four_lines_of_old() {
    for flag in ["-v", "--version"] {
        let text = String::from_utf8(process(&[flag]).stdout).unwrap();
        let labels: Vec<_> =
            text.lines().filter_map(|line| line.split_once(':')).map(|(label, _)| label).collect();
        assert_eq!(labels, ["App Version", "Build Date", "Branch Name", "Commit ID"]);
    }
}

#[test]
fn help_names_every_command_and_the_schema_is_json() {
    let help = String::from_utf8(process(&["help"]).stdout).unwrap();
    insta::assert_snapshot!("help", help);
    let schema = process(&["schema"]).stdout;
    assert!(serde_json::from_slice::<serde_json::Value>(&schema).is_ok());
    for shell in ["bash", "zsh", "fish"] {
        assert!(String::from_utf8(process(&["completion", shell]).stdout).unwrap().contains("check-config"));
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = Command::new(env!("CARGO_BIN_EXE_zsha"))
        .arg("schema")
        .stdout(writer)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert_eq!((status.code(), said.as_str()), (Some(0), ""));
}
