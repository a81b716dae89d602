//! The variables of Consul's own commands that zsha does not obey. One that is silently ignored looks as if it had been.

/// A variable that is set and not obeyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotObeyed {
    pub variable: &'static str,
    /// What follows from that, as the end of a sentence about the variable.
    pub why: &'static str,
    /// What to do instead.
    pub hint: &'static str,
}

const NOT_OBEYED: [NotObeyed; 6] = [
    NotObeyed {
        variable: "CONSUL_HTTP_SSL_VERIFY",
        why: "and zsha checks every certificate",
        hint: "unset it, and name the authority (CONSUL_CACERT) and, where the certificate bears another name than the host's, that \
               (CONSUL_TLS_SERVER_NAME)",
    },
    NotObeyed {
        variable: "CONSUL_CAPATH",
        why: "and zsha takes authorities from one file",
        hint: "unset it; `cat DIRECTORY/*.pem > FILE`, and name that: CONSUL_CACERT",
    },
    NotObeyed {
        variable: "CONSUL_HTTP_AUTH",
        why: "and zsha sends no user and password",
        hint: "unset it, and ask an agent that wants none; a token goes into a file: CONSUL_HTTP_TOKEN_FILE",
    },
    NotObeyed {
        variable: "CONSUL_NAMESPACE",
        why: "and zsha knows the namespace 'default' alone",
        hint: "unset it: a cluster's keys are below zsha/ in the namespace of the token",
    },
    NotObeyed {
        variable: "CONSUL_PARTITION",
        why: "and zsha knows the partition 'default' alone",
        hint: "unset it: a cluster's keys are below zsha/ in the agent's partition",
    },
    NotObeyed {
        variable: "CONSUL_GRPC_ADDR",
        why: "and zsha speaks HTTP",
        hint: "unset it, and name the HTTP address: CONSUL_HTTP_ADDR",
    },
];

/// The names of the variables of which [`not_obeyed`] may ask.
pub fn asked() -> impl Iterator<Item = &'static str> {
    NOT_OBEYED.iter().map(|one| one.variable)
}

/// The variables that are set to something that zsha does not do. An empty one is an unset one, and one that asks for what
/// zsha does anyway is obeyed.
pub fn not_obeyed(value: impl Fn(&str) -> Option<String>) -> Vec<NotObeyed> {
    let is_against = |one: &&NotObeyed| match (one.variable, value(one.variable).as_deref()) {
        (_, None | Some("")) => false,
        ("CONSUL_HTTP_SSL_VERIFY", Some(verify)) => {
            !matches!(verify, "true" | "1" | "t" | "T" | "TRUE" | "True")
        }
        ("CONSUL_NAMESPACE" | "CONSUL_PARTITION", Some(name)) => name != "default",
        (_, Some(_)) => true,
    };
    NOT_OBEYED.iter().filter(is_against).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_that_asks_for_what_zsha_does_not_do_is_told_and_no_other() {
        let told = |variable: &str, value: &str| {
            let told = not_obeyed(|name| (name == variable).then(|| value.to_owned()));
            assert!(told.iter().all(|one| one.variable == variable));
            told.len()
        };
        for (variable, value) in [
            ("CONSUL_HTTP_SSL_VERIFY", "false"),
            ("CONSUL_HTTP_SSL_VERIFY", "0"),
            ("CONSUL_CAPATH", "/etc/consul/ca"),
            ("CONSUL_HTTP_AUTH", "ann:secret"),
            ("CONSUL_NAMESPACE", "team-a"),
            ("CONSUL_PARTITION", "east"),
        ] {
            assert_eq!(told(variable, value), 1, "{variable}={value}");
        }
        for (variable, value) in [
            ("CONSUL_HTTP_SSL_VERIFY", "true"),
            ("CONSUL_CAPATH", ""),
            ("CONSUL_NAMESPACE", "default"),
            ("CONSUL_HTTP_ADDR", "127.0.0.1:8500"),
        ] {
            assert_eq!(told(variable, value), 0, "{variable}={value}");
        }
    }
}
