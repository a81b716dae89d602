//! The connections to a host: its Consul agent, its controller's page, and who takes the place of the agent. Never here:
//! a command that is run on it.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

use super::Host;
use crate::net;
use crate::services::{self, CONSUL_PORT};
use crate::stand_in::{Manner, StandIn};

const HTTP_LIMIT: Duration = Duration::from_secs(2);

impl Host {
    /// Connects to a port on the host's loopback, from inside it: this works with every cable pulled.
    pub fn connect(&self, port: u16) -> Result<TcpStream> {
        net::connect_inside(self.init()?, port, HTTP_LIMIT)
            .with_context(|| format!("connect to port {port} on {}", self.name))
    }

    /// Connects from here to the page of another host's controller, over their network.
    pub fn connect_to_page_of(&self, other: &Self) -> Result<TcpStream> {
        net::connect_from(self.init()?, (other.address(), services::STATUS_PORT).into(), HTTP_LIMIT)
            .with_context(|| format!("connect to the page of {} from {}", other.name, self.name))
    }

    /// Makes a `GET` to the page of another host's controller, from here.
    pub fn page_of(&self, other: &Self, path: &str) -> Result<String> {
        let whole = format!("{}{path}", other.status_http());
        net::get(self.connect_to_page_of(other)?, &whole).with_context(|| format!("page of {}", other.name))
    }

    /// Makes a `GET` to the host's own Consul agent.
    pub fn consul(&self, path: &str) -> Result<String> {
        net::get(self.connect(CONSUL_PORT)?, path).with_context(|| format!("Consul on {}", self.name))
    }

    /// Reads a key of Consul as it stands there, past a leader that may be none any more; none where there is no such
    /// key.
    pub fn key(&self, key: &str) -> Result<Option<String>> {
        let listed = self.consul(&format!("/v1/kv/{key}?keys&consistent"));
        match listed {
            Err(error) if error.to_string().contains("HTTP 404") => Ok(None),
            Err(error) => Err(error),
            Ok(_) => self.consul(&format!("/v1/kv/{key}?raw&consistent")).map(Some),
        }
    }

    /// Writes a key of zsha's past zsha, as a person should not.
    pub fn put_key(&self, key: &str, value: &str) -> Result<()> {
        net::request(self.connect(CONSUL_PORT)?, "PUT", &format!("/v1/kv/{key}"), value)
            .map(drop)
            .with_context(|| format!("Consul on {}", self.name))
    }

    /// Deletes a key of zsha's past zsha, as a person should not either.
    pub fn delete_key(&self, key: &str) -> Result<()> {
        net::request(self.connect(CONSUL_PORT)?, "DELETE", &format!("/v1/kv/{key}"), "")
            .map(drop)
            .with_context(|| format!("Consul on {}", self.name))
    }

    /// Takes the place of the host's own Consul agent, which has to be stopped.
    pub fn stand_in_for_consul(&self, manner: Manner) -> Result<StandIn> {
        let listener = net::listen_inside(self.init()?, CONSUL_PORT)
            .with_context(|| format!("in the place of Consul on {}", self.name))?;
        let queue = match manner {
            Manner::BlackHole => net::fill_queue(self.init()?, CONSUL_PORT)?,
            _ => Vec::new(),
        };
        StandIn::start(listener, manner, queue)
    }

    /// Consul's URL on the lab's network; from the machine itself only with an uplink.
    pub fn consul_http(&self) -> String {
        format!("http://{}:{CONSUL_PORT}", self.address())
    }

    pub fn status_http(&self) -> String {
        format!("http://{}:{}", self.address(), services::STATUS_PORT)
    }
}
