//! What belongs on a node, by the document and by what is there.

use super::*;
use crate::install::testing::of_nodes;
use crate::install::testing::{document, in_ceph, programs};

fn choice(acl: bool) -> Choice {
    Choice { acl, settings: Mapping::new() }
}

fn text(files: &[Wanted], path: &str) -> String {
    let file = files.iter().find(|file| file.path == path).unwrap();
    String::from_utf8(file.content.to_vec()).unwrap()
}

/// The files of the node at this place.
fn of(document: &HaCluster, at: usize, acl: bool, there: Option<&str>) -> Vec<Wanted> {
    let (programs, choice) = (programs(), choice(acl));
    let cluster = Cluster { document, programs: &programs, choice: &choice, gossip: Some("KEY") };
    files(&cluster, &document.nodes()[at], there)
}

fn of_first(acl: bool, there: Option<&str>) -> Vec<Wanted> {
    of(&document(), 0, acl, there)
}

#[test]
fn every_file_is_one_that_uninstall_knows() {
    for file in of_first(true, None) {
        assert!(FILES.contains(&file.path), "{}", file.path);
    }
}

#[test]
fn consul_and_the_controller_are_told_who_they_are() {
    let files = of_first(true, None);
    insta::assert_snapshot!(text(&files, CONSUL_NODE));
    insta::assert_snapshot!(text(&files, SETTINGS));
}

#[test]
fn in_ceph_a_node_is_told_its_login_and_qemus_client_not_to_wait_for_minutes() {
    let document = in_ceph();
    let of = |there| of(&document, 0, true, there);
    let settings = text(&of(None), SETTINGS);
    let login = CephLogin::of(&document).unwrap();
    let lines = [
        format!("cephUser: {}\n", login.user),
        format!("cephSecret: {}\n", login.secret),
        format!("cephConfig: {CEPH_CONFIG}\n"),
    ];
    assert!(lines.iter().all(|line| settings.contains(line)), "{settings}");
    assert!(text(&of(None), CEPH_CONFIG).contains("client mount timeout = 10\n"));
    assert_eq!(text(&of(Some(&settings)), SETTINGS), settings);
    for file in of(None) {
        assert!(FILES.contains(&file.path), "{}", file.path);
    }
}

#[test]
fn without_tokens_nobody_else_reaches_the_http_port() {
    let files = of_first(false, None);
    assert!(text(&files, CONSUL_NODE).contains("client_addr      = \"127.0.0.1\"\n"));
    assert!(!text(&files, CONSUL_NODE).contains("acl {"));
    assert!(!text(&files, SETTINGS).contains("192."), "{}", text(&files, SETTINGS));
}

#[test]
fn what_somebody_has_set_stays_and_so_do_their_comments() {
    let written = text(&of_first(true, None), SETTINGS);
    let edited = format!("# ours\n{written}migrationUri: qemu+tcp://{{address}}/system\n");
    assert_eq!(text(&of_first(true, Some(&edited)), SETTINGS), edited);
    let wrong_node = edited.replace("node: nfs-1", "node: nfs-9");
    let mended = text(&of_first(true, Some(&wrong_node)), SETTINGS);
    assert!(mended.contains("node: nfs-1") && mended.contains("migrationUri"), "{mended}");
}

#[test]
fn the_policies_are_the_shipped_ones_for_this_cluster() {
    let name = ClusterName::new("east").unwrap();
    for (policy, rules) in policies(&name) {
        assert!(!rules.contains("zsha/prod"), "{policy}: {rules}");
    }
    assert!(policies(&name)[2].1.contains("key_prefix \"zsha/east/leases/\""));
}

/// A cluster of five whose servers are the first three: a client is told of servers only, and serves its own node only.
#[test]
fn a_node_that_is_no_server_has_a_client_which_knows_the_servers() {
    let document = of_nodes(5, &["nfs-1", "nfs-2", "nfs-3"]);
    let of = |at, acl| of(&document, at, acl, None);
    let client = of(3, true);
    assert!(text(&client, CONSUL_CLIENT).contains("\nserver = false\n"));
    assert!(client.iter().all(|file| file.path != CONSUL_SERVER && FILES.contains(&file.path)));
    insta::assert_snapshot!(text(&client, CONSUL_NODE));
    assert!(text(&of(3, false), CONSUL_NODE).contains("client_addr      = \"127.0.0.1\"\n"));

    let server = of(1, true);
    assert!(text(&server, CONSUL_SERVER).contains("\nserver = true\n"));
    assert!(server.iter().all(|file| file.path != CONSUL_CLIENT));
    let node = text(&server, CONSUL_NODE);
    assert!(node.contains("bootstrap_expect = 3\n"), "{node}");
    assert!(node.contains("retry_join       = [\"192.168.10.11\",\"192.168.10.13\"]\n"), "{node}");
}

#[test]
fn beside_its_own_agent_a_node_asks_servers_only_and_one_without_a_server_two() {
    let document = of_nodes(5, &["nfs-1", "nfs-2", "nfs-4"]);
    let asked = |at, acl| {
        let settings: Mapping = serde_yaml::from_str(&text(&of(&document, at, acl, None), SETTINGS)).unwrap();
        let urls =
            settings["consul"].as_sequence().unwrap().iter().map(|url| url.as_str().unwrap().to_owned());
        urls.skip(1).collect::<Vec<_>>()
    };
    let url = |node: u8| format!("http://192.168.10.1{node}:8500");
    assert_eq!(asked(0, true), [url(2)]);
    assert_eq!(asked(1, true), [url(4)], "nfs-3 has a client");
    assert_eq!(asked(2, true), [url(4), url(1)], "the next two, begun anew after the last");
    assert_eq!(asked(4, true), [url(1), url(2)]);
    for at in 0..5 {
        assert_eq!(asked(at, false), [""; 0], "without tokens nobody else is reached");
    }
}
