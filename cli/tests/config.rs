//! `export-config`, `import-config`, `status-conf`: the document as the manual of zsha 2.5.1 handles it.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up has failed")]

mod common;

use common::*;
use serde_json::Value;
use zsha::Exit;
use zsha_runtime::store::MemoryStore;

#[tokio::test(start_paused = true)]
async fn what_is_exported_is_what_is_in_force_and_is_imported_as_no_change() {
    let store = healthy().await;
    let directory = tempfile::tempdir().unwrap();
    for name in ["current.config.json", "current.yaml"] {
        let path = directory.path().join(name);
        let path = path.to_str().unwrap();
        let exported = zsha(store.clone(), "", &["export-config", "-o", path]).await;
        assert_eq!(
            (exported.exit, exported.out),
            (Exit::Success, format!("output config json file to {path}\n"))
        );
        let imported = zsha(store.clone(), "", &["import-config", path]).await;
        assert_eq!(imported.exit, Exit::Success, "{imported:?}");
        assert!(imported.out.contains("unchanged"), "{imported:?}");
    }
    let printed = zsha(store.clone(), "", &["export-config", "-o", "-"]).await;
    insta::assert_snapshot!("export_config", printed.out);
    let written = std::fs::read_to_string(directory.path().join("current.config.json")).unwrap();
    assert_eq!(written, printed.out);
}

#[tokio::test(start_paused = true)]
async fn an_import_changes_the_document_and_is_called_so_in_the_history() {
    let store = healthy().await;
    let exported = zsha(store.clone(), "", &["export-config", "-o", "-"]).await;
    let mut config: Value = serde_json::from_str(&exported.out).unwrap();
    config["MemorySizeInGB"] = 12.into();
    let imported = zsha(store.clone(), &config.to_string(), &["import-config", "-", "-m", "more"]).await;
    insta::assert_snapshot!("import_config", imported.transcript());
    let history = zsha(store.clone(), "", &["history", "-o", "json"]).await.json();
    let last =
        history["items"].as_array().unwrap().iter().max_by_key(|item| item["generation"].as_u64()).unwrap();
    assert_eq!((&last["command"], &last["message"]), (&"import-config".into(), &"more".into()));
    config["CPU"] = 1.into();
    let invalid = zsha(store.clone(), &config.to_string(), &["import-config", "-"]).await;
    assert_eq!(invalid.exit, Exit::Invalid, "{invalid:?}");
}

#[tokio::test(start_paused = true)]
async fn status_conf_shows_both() {
    let store = healthy().await;
    let table = zsha(store.clone(), "", &["status-conf"]).await;
    let status = zsha(store.clone(), "", &["status"]).await;
    let exported = zsha(store.clone(), "", &["export-config", "-o", "-"]).await;
    assert_eq!(table.out, format!("{}\n>>>Configuration\n{}", status.out, exported.out));
    let both = zsha(store.clone(), "", &["status-conf", "-o", "json"]).await.json();
    assert_eq!(both["kind"], "StatusConf");
    assert_eq!((&both["status"]["kind"], &both["document"]["kind"]), (&"Status".into(), &"HaCluster".into()));
}

#[tokio::test(start_paused = true)]
async fn without_a_document_or_with_a_form_for_a_file_nothing_is_written() {
    let empty = zsha(MemoryStore::new(), "", &["export-config", "--cluster", "prod"]).await;
    assert_eq!(empty.exit, Exit::General);
    assert!(empty.err.contains("no document has been applied"), "{}", empty.err);
    let form = zsha(healthy().await, "", &["export-config", "-o", "json"]).await;
    assert_eq!(form.exit, Exit::Usage);
    assert!(form.err.contains("-o must name a file for `export-config`"), "{}", form.err);
}
