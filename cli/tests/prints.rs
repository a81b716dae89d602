//! What each command prints, as a person and as a program ask for it, on a healthy cluster. Those with more to tell (status,
//! apply, diff, the orders that wait) have their own files.

mod common;

use common::*;
use zsha::Exit;

/// Runs a command, and compares what it prints with the snapshot of this name. It is given what is typed, and what
/// stands on standard input.
async fn printed(name: &str, words: &[&str], stdin: &str, exit: Exit) {
    let ran = zsha(healthy().await, stdin, words).await;
    assert_eq!(ran.exit, exit, "{ran:?}");
    insta::assert_snapshot!(name, without_random_addresses(&ran.transcript()));
}

/// Those of a sample are made anew each time.
fn without_random_addresses(text: &str) -> String {
    let mut shown = String::new();
    for line in text.split_inclusive('\n') {
        match line.split_once("\"MacAddress\": \"02:") {
            Some((before, rest)) => {
                let after = rest.get(14..).unwrap_or(rest);
                shown += &format!("{before}\"MacAddress\": \"02:..:..:..:..:..{after}");
            }
            None => shown += line,
        }
    }
    shown
}

#[tokio::test(start_paused = true)]
async fn commands_that_only_look() {
    for (name, words) in [
        ("version", &["-v"][..]),
        ("status_conf", &["status-conf"]),
        ("status_conf_json", &["status-conf", "-o", "json"]),
        ("events_json", &["events", "-o", "json"]),
        ("history_json", &["history", "-o", "json"]),
        ("export_config_text", &["export-config", "-o", "-"]),
        ("config_sample_file", &["config-sample", "FileConf", "-o", "-"]),
        ("config_sample_ceph", &["config-sample", "CephConf", "-o", "-"]),
        ("migrate_there", &["migrate", "nfs-1"]),
    ] {
        printed(name, words, "", Exit::Success).await;
    }
    printed("check_config", &["check-config", "-"], &document(8), Exit::Success).await;
    printed("check_config_json", &["check-config", "-", "-o", "json"], &document(8), Exit::Success).await;
    printed("check_config_bad_json", &["check-config", "-", "-o", "json"], &document(2), Exit::Invalid).await;
}

#[tokio::test(start_paused = true)]
async fn orders_and_what_refuses_them() {
    printed("uncordon", &["uncordon", "nfs-2"], "", Exit::Success).await;
    printed("uncordon_json", &["uncordon", "nfs-2", "-o", "json"], "", Exit::Success).await;
    printed("freeze_json", &["freeze", "-m", "new switches", "-o", "json"], "", Exit::Success).await;
    printed("resume", &["resume"], "", Exit::Success).await;
    printed("start_again", &["start"], "", Exit::Success).await;
    printed("start_again_json", &["start", "-o", "json"], "", Exit::Success).await;
    printed("migrate_nowhere", &["migrate", "nfs-9"], "", Exit::Usage).await;
    printed("drain_nowhere_json", &["drain", "nfs-9", "-o", "json"], "", Exit::Usage).await;
    printed("uninstall_unconfirmed", &["uninstall"], "", Exit::Refused).await;
}
