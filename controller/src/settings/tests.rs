//! Tests every value by every way, and every complaint. Values in, values out.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::logs::{LogFileSettings, LogFormat};

fn environment(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn file(text: &str) -> FileText {
    FileText { path: PathBuf::from("/etc/zsha/controller.yaml"), text: text.to_owned() }
}

fn named() -> Flags {
    Flags { cluster: Some("prod".to_owned()), node: Some("nfs-1".to_owned()), ..Flags::default() }
}

fn complaint(flags: &Flags, pairs: &[(&str, &str)], text: Option<&str>) -> String {
    let file = text.map(file);
    resolve(flags, &environment(pairs), file.as_ref()).unwrap_err().to_string()
}

#[test]
fn with_only_the_names_given_everything_has_its_default() {
    let settings = resolve(&named(), &Environment::new(), None).unwrap();
    assert_eq!(settings.cluster.as_str(), "prod");
    assert_eq!(settings.node.as_str(), "nfs-1");
    assert_eq!(settings.consul.endpoints, [DEFAULT_CONSUL.parse().unwrap()]);
    assert_eq!(settings.consul.token_file, None);
    assert_eq!(settings.libvirt, "qemu:///system");
    assert_eq!(settings.listen, format!("127.0.0.1:{}", zsha_crds::PAGE_PORT).parse().unwrap());
    assert!(settings.listen.ip().is_loopback());
    assert_eq!(settings.run_dir, PathBuf::from("/run/zsha"));
    assert_eq!(settings.seed(), PathBuf::from("/var/lib/zsha/prod/seed.img"));
    assert_eq!(settings.domain_type, DomainType::Auto);
    assert!(!settings.unsafe_migration);
    assert_eq!(settings.watchdog_device, None, "a watchdog nobody named is not armed");
    assert_eq!(settings.keeper_socket(), PathBuf::from("/run/zsha/prod/keeper.sock"));
    assert_eq!(settings.log, LogSettings { filter: "info".to_owned(), format: LogFormat::Text, files: None });
}

#[test]
fn a_flag_wins_over_the_environment_and_the_environment_over_the_file() {
    let text = "{cluster: prod, node: c, listen: '127.0.0.1:3', libvirt: 'qemu:///session'}";
    let with_all = Flags { node: Some("a".to_owned()), ..Flags::default() };
    let pairs = [("ZSHA_NODE", "b"), ("ZSHA_LISTEN", "127.0.0.1:2")];
    let settings = resolve(&with_all, &environment(&pairs), Some(&file(text))).unwrap();
    assert_eq!(settings.node.as_str(), "a");
    assert_eq!(settings.listen.port(), 2);
    assert_eq!(settings.libvirt, "qemu:///session");
}

#[test]
fn every_value_can_come_from_the_environment() {
    let pairs = [
        ("ZSHA_CLUSTER", "prod"),
        ("ZSHA_NODE", "nfs-2"),
        ("CONSUL_HTTP_ADDR", "127.0.0.1:8500, 10.0.0.2:8501"),
        ("CONSUL_HTTP_SSL", "true"),
        ("CONSUL_HTTP_TOKEN_FILE", "/etc/zsha/token"),
        ("CONSUL_CACERT", "/etc/zsha/ca.pem"),
        ("CONSUL_CLIENT_CERT", "/etc/zsha/cert.pem"),
        ("CONSUL_CLIENT_KEY", "/etc/zsha/key.pem"),
        ("ZSHA_LIBVIRT", "qemu+unix:///system"),
        ("ZSHA_LISTEN", "[::1]:80"),
        ("ZSHA_RUN_DIR", "/run/other"),
        ("RUST_LOG", "debug"),
        ("ZSHA_LOG_FORMAT", "json"),
        ("ZSHA_LOG_DIRECTORY", "/var/log/z"),
    ];
    let settings = resolve(&Flags::default(), &environment(&pairs), None).unwrap();
    let endpoints: Vec<&str> = settings.consul.endpoints.iter().map(Endpoint::as_str).collect();
    assert_eq!(endpoints, ["https://127.0.0.1:8500", "https://10.0.0.2:8501"]);
    assert_eq!(settings.consul.token_file, Some(PathBuf::from("/etc/zsha/token")));
    assert_eq!(settings.consul.ca_cert, Some(PathBuf::from("/etc/zsha/ca.pem")));
    assert_eq!(settings.consul.client_key, Some(PathBuf::from("/etc/zsha/key.pem")));
    assert_eq!(settings.libvirt, "qemu+unix:///system");
    assert_eq!(settings.run_dir, PathBuf::from("/run/other"));
    let files = Some(LogFileSettings::new(PathBuf::from("/var/log/z")));
    assert_eq!(settings.log, LogSettings { filter: "debug".to_owned(), format: LogFormat::Json, files });
}

#[test]
fn every_value_can_come_from_the_file_and_some_only_from_there() {
    let text = "
cluster: prod
node: nfs-3
consul: [http://127.0.0.1:8500, http://10.0.0.1:8500]
consulTokenFile: /etc/zsha/token
listen: 0.0.0.0:7717
domainType: qemu
unsafeMigration: true
watchdogDevice: /dev/watchdog1
log: zsha_controller=debug,info
logFormat: json
logDirectory: /var/log/z
logTotalMiB: 64
cephUser: zsha-prod
cephSecret: 7c9a1e44-90f5-4a25-a8f7-9d0a51b0b8ea
cephConfig: /etc/zsha/ceph.conf
";
    let settings = resolve(&Flags::default(), &Environment::new(), Some(&file(text))).unwrap();
    assert_eq!(settings.node.as_str(), "nfs-3");
    assert_eq!(settings.consul.endpoints.len(), 2);
    assert_eq!(settings.domain_type, DomainType::Qemu);
    assert!(settings.unsafe_migration);
    assert_eq!(settings.watchdog_device, Some(PathBuf::from("/dev/watchdog1")));
    let secret = uuid::Uuid::parse_str("7c9a1e44-90f5-4a25-a8f7-9d0a51b0b8ea").unwrap();
    assert_eq!(
        settings.ceph,
        Some(CephLogin { user: "zsha-prod".to_owned(), secret, config: Some("/etc/zsha/ceph.conf".into()) })
    );
    assert_eq!(settings.log.format, LogFormat::Json);
    assert_eq!(settings.log.files.unwrap().total, 64 * 1024 * 1024);
}

#[test]
fn half_a_ceph_login_and_what_is_none_are_told() {
    let told = |lines: &str| {
        let text = format!("cluster: prod\nnode: nfs-1\n{lines}");
        resolve(&Flags::default(), &Environment::new(), Some(&file(&text))).unwrap_err().to_string()
    };
    let half = told("cephUser: zsha\n");
    assert!(half.contains("of cephUser and cephSecret only one is set"), "{half}");
    let wrong = told("cephUser: client.zsha\ncephSecret: key\n");
    assert!(wrong.contains("without 'client.' before it") && wrong.contains("virsh secret-list"), "{wrong}");
}

#[test]
fn an_empty_variable_and_a_file_of_comments_say_nothing() {
    let pairs = [("ZSHA_LISTEN", ""), ("CONSUL_HTTP_ADDR", "")];
    let comments = file("# nothing here yet\n");
    let settings = resolve(&named(), &environment(&pairs), Some(&comments)).unwrap();
    assert_eq!(settings, resolve(&named(), &Environment::new(), None).unwrap());
}

#[test]
fn a_variable_that_is_not_text_matters_only_where_it_is_one_of_ours() {
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let mut variables = vec![
        (bytes(b"ZSHA_NODE"), bytes(b"nfs-1")),
        (bytes(b"LS_COLORS"), bytes(b"caf\xe9")),
        (bytes(b"ZSHA_NODE\xff"), bytes(b"nfs-2")),
    ];
    assert_eq!(super::environment(variables.clone()).unwrap(), environment(&[("ZSHA_NODE", "nfs-1")]));
    variables.push((bytes(b"ZSHA_CLUSTER"), bytes(b"caf\xe9")));
    variables.push((bytes(b"CONSUL_HTTP_TOKEN"), bytes(b"secret\xe9")));
    insta::assert_snapshot!(super::environment(variables).unwrap_err());
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_place_and_what_is_allowed() {
    let flags =
        Flags { node: Some("-x-".to_owned()), libvirt: Some("xen:///".to_owned()), ..Flags::default() };
    let pairs = [("ZSHA_LISTEN", "7717"), ("CONSUL_HTTP_TOKEN_FILE", "token"), ("RUST_LOG", "a=loud")];
    insta::assert_snapshot!(complaint(
        &flags,
        &pairs,
        Some("runDir: run\nlogFormat: xml\nlogTotalMiB: 1\nlogDirectory: log\nconsul: ftp://h")
    ));
}

#[test]
fn an_unknown_key_in_the_file_is_an_error_that_names_the_known_ones() {
    insta::assert_snapshot!(complaint(&named(), &[], Some("cluster: prod\ndomainTyp: kvm\n")));
}

#[test]
fn a_node_is_named_as_a_host_is_and_a_cluster_more_freely() {
    let flags =
        Flags { cluster: Some("7.7".to_owned()), node: Some("nfs-.1".to_owned()), ..Flags::default() };
    for node in ["nfs-.1", "10.0.0.1", "-nfs", "nfs_1"] {
        let told = complaint(&Flags { node: Some(node.to_owned()), ..flags.clone() }, &[], None);
        let must = zsha_crds::NodeName::new(node).unwrap_err();
        assert_eq!(told, format!("error: --node: '{node}' {}", must.must()));
        assert!(
            told.contains("each part between dots") && told.contains("not only digits and dots"),
            "{told}"
        );
    }
}

#[test]
fn where_the_guests_seed_lies_is_named_by_an_absolute_path() {
    let with = |directory: &str| file(&format!("stateDir: '{directory}'"));
    let settings = resolve(&named(), &Environment::new(), Some(&with("/srv/zsha"))).unwrap();
    assert_eq!(settings.seed(), PathBuf::from("/srv/zsha/prod/seed.img"));
    let told = complaint(&named(), &[], Some("stateDir: zsha"));
    assert!(told.contains("`stateDir` in") && told.contains("absolute path"), "{told}");
}

#[test]
fn a_migration_goes_to_the_node_it_is_for_by_a_way_that_libvirt_knows() {
    let with = |uri: &str| file(&format!("migrationUri: '{uri}'"));
    for good in [
        DEFAULT_MIGRATION_URI,
        "qemu+tcp://{address}/system",
        "qemu+tcp://{address}:16509/system",
        "qemu+ssh://root@{address}/system?keyfile=/etc/zsha/key",
    ] {
        let settings = resolve(&named(), &Environment::new(), Some(&with(good))).unwrap();
        assert_eq!(settings.migration_uri, good);
    }
    for bad in [
        "",
        "{address}",
        "tcp://{address}",
        "qemu:///system",
        "qemu://{address}/system",
        "qemu+://{address}/system",
        "qemu+tls://10.0.0.2/system",
        "qemu+tls://{node}/system",
        "qemu+tls://{address}/{node}",
        "qemu+tls://{address}",
        "qemu+tls://{address}/",
        "qemu+tls://{address}:port/system",
        "qemu+tls://{address}.cluster/system",
        "qemu+tls://10.0.0.2/{address}",
        "qemu+tls://{address} /system",
        "xen+tls://{address}/system",
    ] {
        let told = complaint(&named(), &[], Some(&with(bad).text));
        let place = format!("error: `migrationUri` in /etc/zsha/controller.yaml: '{bad}' must be");
        assert!(told.starts_with(&place) && told.contains("'qemu+tls://{address}/system'"), "{told}");
    }
}

#[test]
fn a_key_given_twice_and_a_wrong_value_are_errors_that_name_the_key() {
    insta::assert_snapshot!(complaint(&named(), &[], Some("node: a\nnode: b\n")));
    insta::assert_snapshot!(complaint(&named(), &[], Some("node: a\ndomainType: xen\n")));
}

#[test]
fn a_token_in_the_environment_is_refused_instead_of_ignored() {
    insta::assert_snapshot!(complaint(&named(), &[("CONSUL_HTTP_TOKEN", "secret")], None));
    let both = [("CONSUL_HTTP_TOKEN", "secret"), ("CONSUL_HTTP_TOKEN_FILE", "/etc/zsha/token")];
    assert!(resolve(&named(), &environment(&both), None).is_ok());
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    let text = complaint(&named(), &[("CONSUL_CLIENT_CERT", "/etc/zsha/cert.pem")], None);
    assert!(text.contains("only one is set"), "{text}");
}

#[test]
fn a_named_file_that_is_not_there_is_an_error_and_the_default_one_may_be_missing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("controller.yaml");
    let flags = Flags { config: Some(path.display().to_string()), ..named() };
    let error = read_file(&flags, &Environment::new()).unwrap_err().to_string();
    assert!(error.contains("controller.yaml: cannot be read"), "{error}");
    std::fs::write(&path, "listen: 127.0.0.1:1\n").unwrap();
    let by_variable = environment(&[("ZSHA_CONFIG", &path.display().to_string())]);
    let text = read_file(&named(), &by_variable).unwrap().unwrap();
    assert_eq!(text.text, "listen: 127.0.0.1:1\n");
}

#[test]
fn two_clusters_on_one_host_and_one_consul_share_no_file_no_key_and_no_vm_but_the_port_until_one_is_given_another()
 {
    // One name begins with the other: nothing of the one may lie within the other's.
    let of = |cluster: &str| {
        resolve(&Flags { cluster: Some(cluster.to_owned()), ..named() }, &Environment::new(), None).unwrap()
    };
    let (one, two) = (of("prod"), of("prod2"));
    let apart = |a: &Path, b: &Path| !a.starts_with(b) && !b.starts_with(a);
    assert!(apart(&one.keeper_directory(), &two.keeper_directory()));
    assert!(apart(&one.keeper_socket(), &two.keeper_socket()));
    assert!(apart(&one.seed(), &two.seed()));
    let key = |settings: &Settings| zsha_crds::Keys::new(&settings.cluster).lease(&settings.node);
    assert_eq!(key(&one), "zsha/prod/leases/nfs-1");
    assert_eq!(key(&two), "zsha/prod2/leases/nfs-1");
    // By this a keeper knows whose QEMU it may count and kill.
    let vm = zsha_crds::VmName::management();
    assert_ne!(vm.domain_uuid(&one.cluster), vm.domain_uuid(&two.cluster));
    assert_eq!(one.listen, two.listen, "the second says at its start that the port is taken");
}
