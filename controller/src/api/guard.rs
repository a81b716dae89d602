//! Stands before every answer: it checks the host name and the method of a request, and says what a browser may do with
//! the answer.
//!
//! A page somewhere else can point its own host name at 127.0.0.1 and have the reader's browser ask this server
//! for it. Such a request names the other host, so only names that are this server's are answered.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Host names that mean this server, beside `localhost` and any IP address.
#[derive(Debug, Clone, Default)]
pub struct OwnNames(Arc<Vec<String>>);

impl OwnNames {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(Arc::new(names.into_iter().map(|name| name.to_ascii_lowercase()).collect()))
    }

    /// True if `host`, with or without a port, is this server.
    fn include(&self, host: &str) -> bool {
        let name = without_port(host).to_ascii_lowercase();
        let name = name.strip_suffix('.').unwrap_or(&name);
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        name == "localhost" || literal.parse::<IpAddr>().is_ok() || self.0.iter().any(|own| own == name)
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !name.ends_with(':') => name,
        _ => host,
    }
}

/// An error in the shape of all errors of this API.
pub(super) fn refusal(status: StatusCode, reason: &str, message: impl Into<String>) -> Response {
    let body =
        json!({ "kind": "Status", "reason": reason, "message": message.into(), "code": status.as_u16() });
    (status, axum::Json(body)).into_response()
}

/// Refuses requests that name another host.
pub(super) fn against_rebinding(routes: Router, own: OwnNames) -> Router {
    routes.layer(middleware::from_fn(move |request: Request, next: Next| {
        let own = own.clone();
        async move {
            match host_of(&request) {
                Some(host) if !own.include(&host) => refusal(
                    StatusCode::MISDIRECTED_REQUEST,
                    "UnknownHost",
                    format!(
                        "'{host}' is not this server; use its IP address, 'localhost' or the node's name"
                    ),
                ),
                _ => next.run(request).await,
            }
        }
    }))
}

/// The host that a request names. Without a name (HTTP/1.0, a load balancer's check) there is no browser to protect.
fn host_of(request: &Request) -> Option<String> {
    let named =
        request.headers().get(header::HOST).map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned());
    request.uri().authority().map(|authority| authority.as_str().to_owned()).or(named)
}

/// Lets only reading through, whatever the path, and tells browsers to be strict.
pub(super) fn read_only(routes: Router) -> Router {
    routes.layer(middleware::from_fn(|request: Request, next: Next| async move {
        let mut response = if matches!(*request.method(), Method::GET | Method::HEAD) {
            next.run(request).await
        } else {
            let mut refused = refusal(
                StatusCode::METHOD_NOT_ALLOWED,
                "ReadOnly",
                "this address only shows; the cluster is changed with the 'zsha' command",
            );
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            refused
        };
        let headers = response.headers_mut();
        for (name, value) in BROWSER_RULES {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }))
}

const BROWSER_RULES: [(header::HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_localhost_and_own_names_are_this_server_and_nothing_else_is() {
        let own = OwnNames::new(["NFS-1".to_owned()]);
        for host in
            ["127.0.0.1:7717", "10.0.0.7", "[::1]:7717", "localhost", "LOCALHOST:80", "nfs-1:7717", "nfs-1."]
        {
            assert!(own.include(host), "{host}");
        }
        for host in
            ["evil.example", "evil.example:7717", "localhost.evil.example", "127.0.0.1.evil.example", ""]
        {
            assert!(!own.include(host), "{host}");
        }
    }
}
