//! `make lab`: three hosts for a person, with Consul, libvirt and zsha on them, to look around in and to break.
//!
//!   lab           with zsha, whose programs have to be built
//!   lab --bare    hosts, Consul and libvirt only

// It measures and shows real time.
#![allow(clippy::disallowed_methods)]

use std::io::{BufRead, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use zsha_e2e::{Cluster, Host, cache, product_directory};

const BREAK_IT: &str = "  cut N | plug N                    cables of host N
  off N | on N                      power of host N
  kill-qemu N                       kill -9 of the VM on host N
  kill|stop|start|restart|hang|unhang N consul|libvirtd|keeper|controller
  status | where | leader | shells  look
  set FIELD JSON                    change a field of spec and apply, as in: set MemorySizeInGB 9
  quit";

enum Event {
    Line(String),
    End,
}

fn main() -> ExitCode {
    let bare = std::env::args().any(|argument| argument == "--bare");
    match run(bare) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(bare: bool) -> Result<()> {
    let (sender, events) = channel();
    watch_signals(sender.clone())?;
    let start = Instant::now();
    let mut builder = Cluster::builder().nodes(3).profile("Fast").uplink();
    if bare {
        builder = builder.without_product();
    } else {
        product_directory().context("the lab without zsha is `lab --bare`")?;
    }
    let lab = builder.build()?;
    println!("lab: three hosts up after {:.1?}, logs below {}", start.elapsed(), lab.dir().display());
    if !bare {
        start_vm(&lab);
    }
    introduce(&lab, bare)?;
    watch_lines(sender);
    let ended = listen(&lab, &events);
    println!("lab: ending");
    lab.finish()?;
    ended
}

/// Starts the VM. If it fails to start, the lab stays, since a person wants to look into that.
fn start_vm(lab: &Cluster) {
    let start = Instant::now();
    match lab.start_vm() {
        Ok(host) => println!("lab: the VM runs on {}, {:.1?} after `zsha apply`", host.name, start.elapsed()),
        Err(error) => eprintln!("lab: the VM does not run: {error:#}"),
    }
}

fn introduce(lab: &Cluster, bare: bool) -> Result<()> {
    println!("\nlook around (in another terminal, as root):");
    for host in lab.hosts() {
        println!("  {}", host.shell_line()?);
    }
    println!("  in such a shell: zsha status -w; virsh list; virsh console mnvm; zsha-lab-init ctl status");
    for host in lab.hosts() {
        let status = if bare { String::new() } else { format!("  status {}", host.status_http()) };
        println!("  {}: Consul {}{status}", host.name, host.consul_http());
    }
    println!(
        "\nbreak it (here):\n{BREAK_IT}\nCtrl-C ends the lab and leaves nothing behind (tools: {})\n",
        cache().display()
    );
    Ok(())
}

/// Watches for signals. Ctrl-C and SIGTERM end the lab in order; the second time at once, which leaves no process
/// either.
fn watch_signals(sender: Sender<Event>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("tokio")?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let Ok(mut term) = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            else {
                return;
            };
            loop {
                tokio::select! {
                    biased;
                    _ = tokio::signal::ctrl_c() => {}
                    _ = term.recv() => {}
                }
                let first = sender.send(Event::End).is_ok();
                if !first {
                    std::process::exit(130);
                }
            }
        });
    });
    Ok(())
}

/// Reads commands from a terminal or a pipe. The end of a pipe ends the lab only where it said something: with no input
/// at all (`make lab </dev/null`) the lab runs until Ctrl-C.
fn watch_lines(sender: Sender<Event>) {
    std::thread::spawn(move || {
        let mut any = std::io::stdin().is_terminal();
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            any = true;
            if sender.send(Event::Line(line)).is_err() {
                return;
            }
        }
        if any {
            sender.send(Event::End).ok();
        }
    });
}

fn listen(lab: &Cluster, events: &Receiver<Event>) -> Result<()> {
    let mut shown = String::new();
    loop {
        match events.recv_timeout(Duration::from_millis(100)) {
            Ok(Event::Line(line)) if matches!(line.trim(), "quit" | "exit") => return Ok(()),
            Ok(Event::Line(line)) => {
                let start = Instant::now();
                match obey(lab, &line) {
                    Ok(said) => println!("{}[{:.1?}]", said, start.elapsed()),
                    Err(error) => println!("{error:#}"),
                }
            }
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = copies(lab);
        if now != shown {
            println!("VM: {now}");
            shown = now;
        }
    }
}

fn copies(lab: &Cluster) -> String {
    let copies = lab.check().alive();
    let shown: Vec<String> =
        copies.iter().map(|copy| format!("on {}, pid {}", copy.host, copy.pid)).collect();
    if shown.is_empty() { "no copy".into() } else { shown.join(" AND ") }
}

fn obey(lab: &Cluster, line: &str) -> Result<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let host = |number: &str| -> Result<&Host> {
        let found = lab.hosts().iter().find(|host| host.number.to_string() == number || host.name == number);
        found.ok_or_else(|| anyhow!("no host {number}: 1, 2 or 3"))
    };
    match words.as_slice() {
        [] => {}
        ["cut", number] => drop(host(number)?.pull_cables()?),
        ["plug", number] => drop(host(number)?.plug_cables()?),
        ["off", number] => drop(host(number)?.power_off()?),
        ["on", number] => host(number)?.power_on()?,
        ["kill-qemu", number] => drop(host(number)?.kill9("qemu")?),
        ["kill", number, service] => drop(host(number)?.kill9(service)?),
        ["stop", number, service] => host(number)?.stop(service)?,
        ["start", number, service] => host(number)?.start(service)?,
        ["restart", number, service] => host(number)?.restart(service)?,
        ["hang", number, service] => host(number)?.hang(service)?,
        ["unhang", number, service] => host(number)?.unhang(service)?,
        ["where"] => return Ok(copies(lab) + " "),
        ["leader"] => return Ok(format!("{} ", lab.consul_leader()?.name)),
        ["shells"] => {
            let on = lab.hosts().iter().filter(|host| host.is_on());
            return on.map(|host| host.shell_line().map(|line| line + "\n")).collect();
        }
        ["status"] => {
            let host =
                lab.hosts().iter().find(|host| host.is_on()).ok_or_else(|| anyhow!("every host is off"))?;
            return host.zsha(&["status"], "")?.success();
        }
        ["set", field, value @ ..] => {
            let value: serde_json::Value =
                serde_json::from_str(&value.join(" ")).context("the value as JSON")?;
            return lab.apply(&lab.document().with(field, value), "set in the lab");
        }
        _ => bail!("{BREAK_IT}"),
    }
    Ok("done ".into())
}
