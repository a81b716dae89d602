//! The stable codes of diagnostics. A number is never given to another fault, and never reused.
//!
//! Never here: messages.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::Severity;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// The kind of a fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Code {
            $($(#[$doc])* $name,)*
        }

        impl Code {
            /// Every code there is.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

codes! {
    /// The document is larger than any could need to be.
    TooLarge = "ZSHA-E0001",
    /// The bytes are not UTF-8.
    NotUtf8 = "ZSHA-E0002",
    /// The text is not YAML, or not JSON.
    Syntax = "ZSHA-E0003",
    /// The document is nested deeper than any is.
    TooDeep = "ZSHA-E0004",
    /// Anchors, aliases and tags of YAML may not be used.
    AnchorOrTag = "ZSHA-E0005",
    /// There is more than one document in the stream.
    ManyDocuments = "ZSHA-E0006",
    /// There is nothing in the text.
    Empty = "ZSHA-E0007",
    /// A key is there twice.
    DuplicateKey = "ZSHA-E0008",
    /// A line is indented with tabs.
    Tab = "ZSHA-E0009",
    /// A key that is not known.
    UnknownKey = "ZSHA-E0010",
    /// A required key is missing.
    MissingKey = "ZSHA-E0011",
    /// A value is of another type.
    WrongType = "ZSHA-E0012",
    /// A value that is not one of those allowed.
    NotAllowed = "ZSHA-E0013",
    /// A number is out of its bounds.
    OutOfRange = "ZSHA-E0014",
    /// A text is not of its form.
    Malformed = "ZSHA-E0015",
    /// A list is too short.
    TooFew = "ZSHA-E0016",
    /// A character that is not seen.
    Unseen = "ZSHA-E0017",
    /// Schema and decoder disagree: a fault of zsha.
    Undecodable = "ZSHA-E0019",
    /// The number of nodes is even.
    NodeCountEven = "ZSHA-E0020",
    /// Two nodes have one name.
    NodeNameTwice = "ZSHA-E0021",
    /// Two nodes have one address.
    NodeAddressTwice = "ZSHA-E0022",
    /// An address that no host can have, or a name by which every host means itself.
    UnusableAddress = "ZSHA-E0023",
    /// `MonAddrs` does not fit `Type`.
    MonAddrsAndType = "ZSHA-E0024",
    /// `PoolName` does not fit `Type`.
    PoolNameAndType = "ZSHA-E0025",
    /// `ImageFolder` does not fit `Type`.
    ImageFolderAndType = "ZSHA-E0026",
    /// A path has `..` in it, or is not to be used.
    BadPath = "ZSHA-E0027",
    /// A port is above 65535.
    BadPort = "ZSHA-E0028",
    /// The same entry is twice in a list.
    EntryTwice = "ZSHA-E0029",
    /// A MAC address is no NIC's.
    MacNotUnicast = "ZSHA-E0030",
    /// Two NICs have one MAC address.
    MacTwice = "ZSHA-E0031",
    /// The per-node form stands where it may not be.
    PerNodeNotAllowed = "ZSHA-E0032",
    /// The per-node form names a node that is not in the cluster.
    PerNodeUnknownNode = "ZSHA-E0033",
    /// The per-node form leaves a node out.
    PerNodeMissingNode = "ZSHA-E0034",
    /// The per-node form names a node twice.
    PerNodeNodeTwice = "ZSHA-E0035",
    /// A netmask has holes, or is of no use.
    BadNetmask = "ZSHA-E0036",
    /// A gateway is outside its subnet.
    GatewayOutside = "ZSHA-E0037",
    /// The gateway's address is the guest's.
    GatewayIsGuest = "ZSHA-E0038",
    /// The guest's address is a node's.
    GuestIsNode = "ZSHA-E0039",
    /// Two NICs have one address.
    GuestAddressTwice = "ZSHA-E0040",
    /// The number of management NICs is not one.
    MgmtNicCount = "ZSHA-E0041",
    /// The number of NICs with the default route is not one.
    DefRouteCount = "ZSHA-E0042",
    /// A time source that would follow itself.
    ChronyIsGuest = "ZSHA-E0043",
    /// Timings under which two copies could run.
    UnsafeTimings = "ZSHA-E0050",
    /// A node that is not in the cluster.
    UnknownNode = "ZSHA-E0051",
    /// A mount's source that cannot be the same on every node, or that its file system does not take.
    BadSource = "ZSHA-E0052",
    /// The number of Consul's servers is not one that it may be.
    ServerCount = "ZSHA-E0053",
    /// A file system that only one host may mount.
    LocalFileSystem = "ZSHA-E0054",
    /// `ImageFormat` does not fit `Type`.
    ImageFormatAndType = "ZSHA-E0055",
    /// No mount of the document holds the image.
    ImageNotOnMount = "ZSHA-W0001",
    /// A lease too short to outlast an election of Consul's leader.
    LeaseShort = "ZSHA-W0002",
    /// A MAC address that older versions of libvirt refuse.
    MacLikeATap = "ZSHA-W0003",
    /// A folder that is called like a file.
    FolderLikeAFile = "ZSHA-W0004",
    /// The subnets of two NICs overlap.
    SubnetsOverlap = "ZSHA-W0005",
    /// A mount of a folder that the host has already.
    LocalFolder = "ZSHA-W0006",
}

impl Code {
    pub fn severity(self) -> Severity {
        if self.as_str().starts_with("ZSHA-W") { Severity::Warning } else { Severity::Error }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Code {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Code {
    fn schema_name() -> Cow<'static, str> {
        "DiagnosticCode".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^ZSHA-[EW][0-9]{4}$" })
    }
}
