//! How QEMU logs in to Ceph, where the image is there: a user of the cluster's own, made by a node that administers
//! Ceph, and its key, held by libvirt on every node. A key stands in no command line and in no file of ours.

use serde_yaml::Mapping;
use uuid::Uuid;
use zsha_crds::document::{ImageType, RBD_IMAGE};
use zsha_crds::{ClusterName, HaCluster, VmId};

use super::ssh::{Remote, SshError, quoted};
use super::waits::SHORT;

/// Keys of a node's settings.
pub(crate) const USER: &str = "cephUser";
pub(crate) const SECRET: &str = "cephSecret";
pub(crate) const CONFIG: &str = "cephConfig";

/// The settings of QEMU's client. Left alone, it waits 300 s for a monitor that does not answer, and the start of the
/// VM with it.
pub(crate) const SETTINGS: &str = "# Written by `zsha install`: how QEMU's client of Ceph is set. Whom it asks and as whom stands in the domain.\n\
    [global]\nclient mount timeout = 10\nrados mount timeout = 10\n";

/// The user of Ceph that install makes for a cluster. It is the same whenever it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CephLogin {
    /// The user's name without `client.`.
    pub(crate) user: String,
    pub(crate) secret: Uuid,
    pub(crate) pool: String,
    /// The monitors as `ceph -m` takes them.
    pub(crate) monitors: String,
}

impl CephLogin {
    /// None where the image is not in Ceph.
    pub(crate) fn of(document: &HaCluster) -> Option<Self> {
        let pool = document.pool_name().filter(|_| document.image_type() == ImageType::CephConf)?;
        let monitors: Vec<_> = document.mon_addrs().iter().map(|monitor| monitor.as_str()).collect();
        Some(Self { pool: pool.to_owned(), monitors: monitors.join(","), ..Self::named(document.name()) })
    }

    /// Makes the login's name and secret, which no document says. The rest is empty.
    pub(crate) fn named(cluster: &ClusterName) -> Self {
        let vm = VmId::of(cluster).uuid;
        Self {
            user: format!("zsha-{cluster}"),
            secret: Uuid::new_v5(&vm, b"ceph"),
            pool: String::new(),
            monitors: String::new(),
        }
    }

    /// Makes the login that a document asks for. None where an operator gave one in its place: that one is kept.
    pub(crate) fn ours(document: &HaCluster, given: &Mapping, there: Option<&str>) -> Option<Self> {
        let ours = Self::of(document)?;
        let there: Option<Mapping> = there.and_then(|text| serde_yaml::from_str(text).ok());
        let told = |key: &str| given.get(key).or_else(|| there.as_ref()?.get(key)).cloned();
        let is_ours = |key, value: String| told(key).is_none_or(|told| told.as_str() == Some(value.as_str()));
        (is_ours(USER, ours.user.clone()) && is_ours(SECRET, ours.secret.to_string())).then_some(ours)
    }

    pub(crate) fn client(&self) -> String {
        format!("client.{}", self.user)
    }

    /// The image as `rbd` names it.
    pub(crate) fn image(&self) -> String {
        format!("{}/{RBD_IMAGE}", self.pool)
    }

    /// The capability `osd`: what the user may do with the data.
    pub(crate) fn caps(&self) -> String {
        format!("profile rbd pool={}", self.pool)
    }

    /// Makes the user, or gives the one there is what it needs; its key. There a node that administers Ceph.
    pub(crate) async fn make(&self, remote: &Remote) -> Result<String, SshError> {
        let (client, pool) = (quoted(&self.client()), quoted(&self.caps()));
        let ceph = format!("ceph -m {}", quoted(&self.monitors));
        // `profile rbd` of the monitors lets whoever takes the image over shut out the client that had it.
        let caps = format!("mon 'profile rbd' osd {pool}");
        let script = format!(
            "set -e\n{ceph} auth get-or-create {client} {caps} >/dev/null 2>&1 || {ceph} auth caps {client} {caps} >/dev/null\n\
             {ceph} auth get-key {client}"
        );
        let key = remote.run(&script, &[], 2 * SHORT).await?.text().trim().to_owned();
        if key.is_empty() {
            return Err(SshError::Script { status: 0, stderr: format!("Ceph names no key of {client}") });
        }
        Ok(key)
    }

    /// Has libvirt there hold the key.
    pub(crate) async fn hold(&self, remote: &Remote, key: &str) -> Result<(), SshError> {
        let (secret, client) = (self.secret, self.client());
        // Through a pipe of its own: what SSH gives the script may be a socket, which nobody can open by its name.
        let script = format!(
            "set -e\nkey=$(cat)\nlibvirt='virsh -q -c qemu:///system'\nprintf '%s' \
             \"<secret ephemeral='no' private='no'><uuid>{secret}</uuid>\
             <usage type='ceph'><name>{client} of zsha</name></usage></secret>\" |\n  \
             $libvirt secret-define /dev/stdin >/dev/null\nprintf '%s' \"$key\" |\n  \
             $libvirt secret-set-value {secret} --file /dev/stdin >/dev/null"
        );
        remote.run(&script, key.as_bytes(), SHORT).await.map(drop)
    }

    /// Lines of a script that takes the key from a node's libvirt.
    pub(crate) fn forget(&self) -> String {
        let (libvirt, secret) = ("virsh -q -c qemu:///system", self.secret);
        format!(
            "! {libvirt} secret-dumpxml {secret} >/dev/null 2>&1 || {libvirt} secret-undefine {secret} >/dev/null\n"
        )
    }

    /// There a node that administers Ceph.
    pub(crate) async fn remove(&self, remote: &Remote) -> Result<(), SshError> {
        let (monitors, client) = (quoted(&self.monitors), quoted(&self.client()));
        remote.run(&format!("ceph -m {monitors} auth del {client} >/dev/null"), &[], SHORT).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::testing::{document, in_ceph};

    #[test]
    fn a_cluster_whose_image_is_in_ceph_has_a_login_of_its_own_and_always_the_same() {
        assert_eq!(CephLogin::of(&document()), None);
        let login = CephLogin::of(&in_ceph()).unwrap();
        assert_eq!(login, CephLogin::of(&in_ceph()).unwrap());
        assert_eq!(login.client(), format!("client.zsha-{}", in_ceph().name()));
        assert!(login.image().ends_with("/mnvm"), "{login:?}");
    }

    #[test]
    fn who_has_a_login_of_their_own_keeps_it() {
        let of = |text: &str| serde_yaml::from_str::<Mapping>(text).unwrap();
        let (document, none) = (in_ceph(), Mapping::new());
        let ours = CephLogin::of(&document).unwrap();
        assert_eq!(CephLogin::ours(&document, &none, None), Some(ours.clone()));
        assert_eq!(CephLogin::ours(&document, &of("cephUser: libvirt"), None), None);
        assert_eq!(CephLogin::ours(&document, &none, Some("cephUser: libvirt\n")), None);
        let secret = "cephSecret: 7c9a1e44-90f5-4a25-a8f7-9d0a51b0b8ea\n";
        let same_name = format!("cephUser: {}\n{secret}", ours.user);
        assert_eq!(CephLogin::ours(&document, &of(&same_name), None), None);
        let again = format!("cephUser: {}\n", ours.user);
        assert_eq!(CephLogin::ours(&document, &none, Some(&again)), Some(ours));
    }
}
