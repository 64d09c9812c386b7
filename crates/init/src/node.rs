//! PID 1 of the node: prepare, then keep services alive until told to end.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use model::boot::{self, BOOT_MARKS, PowerKind, PowerRequest, WATCHDOG_MARK};
use model::installer;
use model::reported::BootReason;
use model::services::{self, ALL, Image, Service};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, WaitOptions, wait};
use rustix::system::RebootCommand;

use crate::failure::{Doing, Failure};
use crate::notify::{Notify, Said};
use crate::power::{self, Buttons};
use crate::supervise::{Action, Death, Event, Table};
use crate::uevent::Uevents;
use crate::watchdog::Watchdog;
use crate::{cgroup, config, console, folders, mounts, shutdown, spawn};

/// At least this often the loop goes round.
const TICK: Duration = Duration::from_secs(1);

/// When the root file system is read whole, in milliseconds since the kernel started.
const ROOT_CHECK_AT_MS: u64 = 60_000;

/// What PID 1 knows and holds.
pub(crate) struct Node {
    pub(crate) table: Table,
    pub(crate) watchdog: Watchdog,
    signals: SignalFd,
    notify: Notify,
    uevents: Option<Uevents>,
    buttons: Buttons,
    /// The process that loads modules, while there is one, and who waits for the next.
    loader: Option<i32>,
    wanted_drivers: Vec<String>,
    /// Both ends of every log pipe.
    _pipes: Vec<File>,
    out_of_memory: Vec<(Service, u64)>,
    persist_ready: bool,
    told_ready: bool,
    root_checked: bool,
}

/// Returns only if the node cannot run; the kernel then panics.
pub(crate) fn run() -> ExitCode {
    match prepare() {
        Ok(mut node) => {
            let request = node.keep();
            shutdown::run(&mut node, &request);
        }
        Err(why) => console::alarm(why),
    }
    ExitCode::FAILURE
}

fn prepare() -> Result<Node, Failure> {
    mounts::rest()?;
    console::unlimited();
    console::milestone("init");
    settings();
    folders::early()?;
    mark("init");
    cgroup::prepare()?;
    let mut mask = SigSet::empty();
    for signal in [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR2] {
        mask.add(signal);
    }
    mask.thread_block().doing(|| "block signals".to_owned())?;
    let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
        .doing(|| "listen to signals".to_owned())?;
    let notify = Notify::listen().doing(|| "listen to services".to_owned())?;
    // Before the first look at what is there, so that nothing falls between.
    let uevents = Uevents::listen().inspect_err(|e| console::warn(e)).ok();
    let loader = spawn::start_self(&["load-modules"]).inspect_err(|f| console::warn(f)).ok();
    tell_serial();
    let image = image();
    // An empty /config is no reason to stop: the node waits to be told of its controller. An
    // installer reads its medium itself.
    if image == Image::Node
        && let Err(why) = config::load()
    {
        console::alarm(format_args!("/config is empty: {why}"));
    }
    let pipes = ALL
        .iter()
        .map(|spec| {
            let service = spec.service.name();
            spawn::hold_pipe(spec).doing(|| format!("open the log pipe of {service}"))
        })
        .collect::<Result<_, _>>()?;
    mark("services");
    Ok(Node {
        table: Table::new(services::of(image), |path| Path::new(path).exists()),
        watchdog: Watchdog::default(),
        signals,
        notify,
        uevents,
        buttons: Buttons::default(),
        loader,
        wanted_drivers: Vec::new(),
        _pipes: pipes,
        out_of_memory: Vec::new(),
        // An installer has no /persist, and waits for none.
        persist_ready: image == Image::Installer,
        told_ready: false,
        root_checked: false,
    })
}

/// Which system this is. Its root file system is verified: what is in it is true.
fn image() -> Image {
    let mark = Path::new(installer::BITS).join(installer::MANIFEST);
    if mark.exists() { Image::Installer } else { Image::Node }
}

/// What the kernel should do differently from its defaults.
fn settings() {
    let _ = rustix::system::sethostname(b"eve");
    // ctrl-alt-del comes to us as a signal.
    let _ = rustix::system::reboot(RebootCommand::CadOff);
    for (knob, value) in [
        ("kernel/modprobe", "/sbin/modprobe"),
        // Services may speak all at once: the default, ten messages, is fewer than they are.
        ("net/unix/max_dgram_qlen", "512"),
        ("kernel/panic_on_oops", "1"),
        ("kernel/kptr_restrict", "1"),
        ("fs/protected_hardlinks", "1"),
        ("fs/protected_symlinks", "1"),
        ("fs/protected_fifos", "1"),
        ("fs/protected_regular", "1"),
    ] {
        if let Err(error) = console::overwrite(&format!("/proc/sys/{knob}"), value) {
            console::note(format_args!("{knob} stays as it is: {error}"));
        }
    }
    if boot::debug(&fs::read_to_string("/proc/cmdline").unwrap_or_default()) {
        console::note("debug mode (eve.debug): services also write to the console");
        // The log's service does it, and it is no root.
        let _ = std::os::unix::fs::chown("/dev/console", Some(Service::Log.spec().uid), None);
    }
}

/// The machine's serial number where services may read it: the kernel shows it to root only.
fn tell_serial() {
    // Not every machine has firmware tables, and not every table has a number.
    let Ok(serial) = fs::read("/sys/class/dmi/id/product_serial") else { return };
    let told = File::create("/run/eve/serial").and_then(|mut file| file.write_all(&serial));
    if let Err(error) = told {
        console::warn(format_args!("cannot write /run/eve/serial: {error}"));
    }
}

/// A moment of the boot, for `eved health` to report.
fn mark(what: &str) {
    let line = boot::mark(what, console::uptime_ms());
    let _ = OpenOptions::new()
        .create(true)
        .append(true)
        .open(Path::new("/run/eve").join(BOOT_MARKS))
        .and_then(|mut file| file.write_all(line.as_bytes()));
}

impl Node {
    /// Keeps services alive until something asks for the end.
    fn keep(&mut self) -> PowerRequest {
        let mut events = VecDeque::from([Event::Tick]);
        self.buttons.look();
        loop {
            // To the end, starts included, before anybody is reaped: a service that ends at once
            // must be known by then.
            while let Some(event) = events.pop_front() {
                for action in self.table.step(console::uptime_ms(), &event) {
                    match self.act(&action) {
                        Ok(more) => events.extend(more),
                        Err(request) => return request,
                    }
                }
            }
            self.wait();
            if let Some(request) = self.signalled() {
                return request;
            }
            if self.buttons.pressed() {
                return power_off("power button");
            }
            events.extend(self.reap());
            events.extend(self.heard());
            self.drivers();
            if self.watchdog.open() == Some(true) {
                mark(WATCHDOG_MARK);
            }
            self.watchdog.feed();
            self.check_root();
            events.push_back(Event::Tick);
        }
    }

    fn wait(&self) {
        let buttons: Vec<_> = self.buttons.fds().collect();
        let mut fds: Vec<&dyn std::os::fd::AsFd> = vec![&self.signals, &self.notify];
        fds.extend(self.uevents.iter().map(|u| u as &dyn std::os::fd::AsFd));
        fds.extend(buttons.iter().map(|b| b as &dyn std::os::fd::AsFd));
        spawn::wait_for(&fds, TICK);
    }

    fn act(&mut self, action: &Action) -> Result<Option<Event>, PowerRequest> {
        match action {
            Action::Start(service) => {
                if !self.persist_ready && *service != Service::Storage {
                    self.prepare_persist();
                }
                Ok(Some(match spawn::start(service.spec()) {
                    Ok(pid) => Event::Started(*service, pid),
                    Err(failure) => {
                        console::warn(failure);
                        Event::NotStarted(*service)
                    }
                }))
            }
            Action::Kill(service, pid) => {
                let (name, promise) = (service.name(), service.spec().watchdog.as_secs());
                console::warn(format_args!("{name} was silent for {promise} s and is killed"));
                if let Some(pid) = Pid::from_raw(*pid) {
                    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
                }
                Ok(None)
            }
            Action::Reboot(reason, words) => {
                Err(PowerRequest::new(PowerKind::Reboot, *reason, words))
            }
        }
    }

    /// Once storage is done, the folders of all others can be made.
    fn prepare_persist(&mut self) {
        if self.table.is_done(Service::Storage) {
            self.persist_ready = true;
            console::milestone("/persist mounted");
            if let Err(failure) = folders::on_persist() {
                console::alarm(failure);
            }
        }
    }

    /// Everybody who ended, as events for the table.
    pub(crate) fn reap(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
            let pid = pid.as_raw_nonzero().get();
            if self.loader == Some(pid) {
                self.loader = None;
                self.buttons.look();
                continue;
            }
            let Some(service) = self.table.service(pid) else { continue };
            let (how, death) = match (status.exit_status(), status.terminating_signal()) {
                (Some(0), _) => ("ended".to_owned(), Death::Done),
                (Some(code), _) => (format!("ended with status {code}"), Death::Failed),
                (_, Some(9)) if self.new_oom_kills(service) => {
                    ("was killed: it used more memory than it may".to_owned(), Death::OutOfMemory)
                }
                (_, signal) => {
                    (format!("was ended by signal {}", signal.unwrap_or_default()), Death::Failed)
                }
            };
            self.tell_end(service, &how, death);
            events.push(Event::Ended(pid, death));
        }
        events
    }

    fn tell_end(&self, service: Service, how: &str, death: Death) {
        if death == Death::Done {
            return;
        }
        let (name, starts) = (service.name(), self.table.starts(service));
        console::warn(format_args!("service {name} {how} (start {starts} of this boot)"));
        // Without a reader of logs, its last words would never be heard.
        if service == Service::Log || self.table.pid(Service::Log).is_none() {
            for line in spawn::last_words(service.spec()) {
                console::warn(format_args!("{name}: {line}"));
            }
        }
    }

    fn new_oom_kills(&mut self, service: Service) -> bool {
        let now = cgroup::out_of_memory_kills(service);
        let known = self.out_of_memory.iter_mut().find(|(s, _)| *s == service);
        let before = match known {
            Some((_, count)) => std::mem::replace(count, now),
            None => {
                self.out_of_memory.push((service, now));
                0
            }
        };
        now > before
    }

    fn heard(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        for (pid, said) in self.notify.take() {
            events.push(match said {
                Said::Ready => {
                    if let Some(service) = self.table.service(pid) {
                        console::note(format_args!("service {} is ready", service.name()));
                    }
                    Event::Ready(pid)
                }
                Said::Alive => Event::Alive(pid),
                Said::Status(text) => {
                    if let Some(service) = self.table.service(pid) {
                        console::note(format_args!("service {}: {text}", service.name()));
                    }
                    continue;
                }
            });
        }
        if !self.told_ready && self.table.all_ready() {
            self.told_ready = true;
            console::milestone("all services ready");
            mark("ready");
        }
        events
    }

    /// Loads drivers for devices that came since the last time.
    fn drivers(&mut self) {
        if let Some(aliases) = self.uevents.as_ref().and_then(Uevents::aliases) {
            self.wanted_drivers.extend(aliases);
            self.buttons.look();
        }
        if self.loader.is_none() && !self.wanted_drivers.is_empty() {
            // Bounded: what does not fit comes with the next call.
            let rest = self.wanted_drivers.split_off(self.wanted_drivers.len().min(200));
            let now = std::mem::replace(&mut self.wanted_drivers, rest);
            let args: Vec<&str> =
                std::iter::once("load-modules").chain(now.iter().map(String::as_str)).collect();
            self.loader = spawn::start_self(&args).inspect_err(|f| console::warn(f)).ok();
        }
    }

    /// Once a boot, when the rush is over, all of the root file system is read.
    fn check_root(&mut self) {
        if !self.root_checked && console::uptime_ms() > ROOT_CHECK_AT_MS {
            self.root_checked = true;
            let _ = spawn::start_self(&["check-root"]).inspect_err(|f| console::warn(f));
        }
    }

    fn signalled(&mut self) -> Option<PowerRequest> {
        let mut request = None;
        while let Ok(Some(info)) = self.signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
            request = match signal {
                Some(Signal::SIGTERM) => Some(
                    power::requested()
                        .unwrap_or_else(|| reboot(BootReason::Unknown, "PID 1 was told to end")),
                ),
                Some(Signal::SIGINT) => Some(reboot(BootReason::RebootCommand, "ctrl-alt-del")),
                Some(Signal::SIGUSR2) => Some(power_off("SIGUSR2 to PID 1")),
                _ => request,
            };
        }
        request
    }

    /// Reaps until these are gone or time is up. Returns those that are left.
    pub(crate) fn wait_until_gone(&mut self, pids: &[i32], patience: Duration) -> Vec<i32> {
        let step = Duration::from_millis(20);
        let mut waited = Duration::ZERO;
        let mut left: Vec<i32> = pids.to_vec();
        loop {
            for event in self.reap() {
                if let Event::Ended(pid, _) = event {
                    left.retain(|p| *p != pid);
                }
                // So that the table forgets the process. What it would do about it is not done:
                // the node goes down.
                let _ = self.table.step(console::uptime_ms(), &event);
            }
            if left.is_empty() || waited >= patience {
                return left;
            }
            std::thread::sleep(step);
            waited += step;
        }
    }
}

fn reboot(reason: BootReason, words: &str) -> PowerRequest {
    PowerRequest::new(PowerKind::Reboot, reason, words)
}

fn power_off(words: &str) -> PowerRequest {
    PowerRequest::new(PowerKind::PowerOff, BootReason::PoweroffCommand, words)
}
