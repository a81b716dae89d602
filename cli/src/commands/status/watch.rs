//! `zsha status -w`: redrawn in place on a terminal, a line for each change elsewhere. It reads, and nothing else.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use zsha_crds::ClusterName;
use zsha_crds::status::{ClusterStatus, summarise};
use zsha_runtime::client::watch::Onlooker;

use super::screen::{Key, Screen};
use super::{Args, banner, line, table};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::form::Form;
use crate::session::{Reach, Session};

/// The pause between two looks. A look is six small reads of the nearest server: a person sees no faster, and Consul
/// does not notice.
const EVERY: Duration = Duration::from_millis(500);

pub(super) async fn run(
    args: &Args,
    reach: &Reach,
    cluster: &ClusterName,
    session: &mut Session<'_>,
) -> Result<Exit, Failure> {
    let in_place = session.output.out_look.terminal && !matches!(args.output, Form::Json | Form::Yaml);
    let mut eyes = Onlooker::new(Arc::clone(&reach.store), cluster.clone(), session.clock);
    if in_place { redrawn(args, &mut eyes, session).await } else { appended(args, &mut eyes, session).await }
}

async fn redrawn(args: &Args, eyes: &mut Onlooker, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let (mut screen, mut keys) = Screen::open()?;
    let colour = session.output.out_look.colour;
    let mut text = String::from("contacting Consul ...\n");
    loop {
        let looked = tokio::select! {
            biased;
            key = keys.recv() => match key {
                Some(Key::Quit) | None => return Ok(Exit::Success),
                Some(Key::Interrupt) => return Ok(Exit::Interrupted),
                Some(Key::Resized) => {
                    screen.draw(&mut session.output.out, &text)?;
                    continue;
                }
            },
            looked = eyes.look() => looked,
        };
        text = match looked {
            Ok(view) => {
                let status = summarise(&view);
                let banner = banner(&status).map(|banner| banner + "\n").unwrap_or_default();
                let at = status.as_of.strftime("%H:%M:%S UTC");
                let wide = args.output == Form::Wide;
                // On top: what does not fit on the screen is cut off below.
                format!("{at}, q ends\n\n{banner}{}", table::render(&status, wide, colour))
            }
            // What is on the screen is old now; it may not stand there as the present.
            Err(error) => format!("{}\ntrying again, q ends\n", Failure::from(error).text(colour)),
        };
        screen.draw(&mut session.output.out, &text)?;
        let next = tokio::time::Instant::now() + EVERY;
        loop {
            tokio::select! {
                biased;
                key = keys.recv() => match key {
                    Some(Key::Quit) | None => return Ok(Exit::Success),
                    Some(Key::Interrupt) => return Ok(Exit::Interrupted),
                    Some(Key::Resized) => screen.draw(&mut session.output.out, &text)?,
                },
                () = tokio::time::sleep_until(next) => break,
            }
        }
    }
}

async fn appended(args: &Args, eyes: &mut Onlooker, session: &mut Session<'_>) -> Result<Exit, Failure> {
    let mut told: Option<Value> = None;
    let mut failing = false;
    loop {
        let looked = tokio::select! {
            biased;
            done = tokio::signal::ctrl_c() => return done.map(|()| Exit::Interrupted).map_err(Failure::from),
            looked = eyes.look() => looked,
        };
        match looked {
            Ok(view) => {
                failing = false;
                let status = summarise(&view);
                let essence = essence(&status);
                if told.as_ref() != Some(&essence) {
                    tell(args, &status, told.is_none(), session)?;
                    told = Some(essence);
                }
                if session.output.out.reader_is_gone() {
                    return Ok(Exit::Success);
                }
            }
            Err(error) => {
                if !failing {
                    let failure = Failure::from(error);
                    let text = if args.output.is_json() { failure.json() } else { failure.text(false) };
                    session.output.tell(text.trim_end())?;
                }
                failing = true;
                told = None;
            }
        }
        tokio::select! {
            biased;
            done = tokio::signal::ctrl_c() => return done.map(|()| Exit::Interrupted).map_err(Failure::from),
            () = tokio::time::sleep(EVERY) => {}
        }
    }
}

/// The status without what changes by mere looking.
fn essence(status: &ClusterStatus) -> Value {
    let leases: Vec<_> =
        status.nodes.iter().map(|n| json!([n.name, n.lease, n.ready, n.controller, n.local_vm])).collect();
    let conditions: Vec<_> = status.conditions.iter().map(|c| json!([c.kind, c.status, c.reason])).collect();
    json!([
        status.vm,
        leases,
        conditions,
        status.generation,
        status.observed_generation,
        status.protection,
        status.waiting,
        status.events,
        status.data_age.is_current()
    ])
}

fn tell(args: &Args, status: &ClusterStatus, first: bool, session: &mut Session<'_>) -> Result<(), Failure> {
    match args.output {
        Form::Json => {
            let kind = if first { "ADDED" } else { "MODIFIED" };
            session.output.json_line(&json!({ "type": kind, "object": status }))
        }
        Form::Yaml => {
            session.output.line("---")?;
            session.output.yaml(status)?;
            Ok(session.output.out.flush()?)
        }
        _ => {
            session.output.line(&line::line(status))?;
            Ok(session.output.out.flush()?)
        }
    }
}
