//! `eve up`, step by step.

use std::time::{Duration, Instant};

use anyhow::bail;
use host::qemu::{Firmware, Forward, SerialLog, Swtpm, probe, start_detached};
use model::{Bytes, UnixMillis};

use super::fleet::{self, Fleet};
use super::state::{FORMAT, Folder, Mark, State};
use super::{Args, node};
use crate::image::{self, Images};
use crate::out::{self, OrAdvise, Seconds, Step};
use crate::places;

/// How often everything is looked at while waiting.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// How often the controller is asked about the node.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// An app that runs answers at once; emulated, in a second or two.
const PAGE_LIMIT: Duration = Duration::from_secs(4);

/// A node reports what has changed within seconds. Nothing depends on it but the summary.
const REPORT_LIMIT: Duration = Duration::from_secs(20);

/// Brings everything up, from the state of an earlier run if there is one. What was started is in
/// the folder's state at any time, whatever becomes of this.
pub(super) fn begin(args: Args, folder: &Folder, before: Option<State>) -> anyhow::Result<State> {
    // Whatever would fail late is looked at first: a build takes minutes, and what runs may serve.
    if args.port == args.controller_port {
        return Err(out::advised(
            format!("port {} cannot be both the page's and the controller's", args.port),
            "give --port and --controller-port different numbers",
        ));
    }
    places::repository()?; // apps/hello is built from it
    let arch = places::arch(args.arch, args.image.as_deref())?;
    let firmware = Firmware::find(arch).or_advise()?;
    if let Some(state) = before.as_ref().filter(|s| s.runs()) {
        say!("An earlier `eve up` left something running.");
        super::stop(state, folder)?;
    }
    let before = if args.fresh {
        folder.clear()?;
        None
    } else {
        before
    };

    check_free(args.port, "--port")?;
    check_free(args.controller_port, "--controller-port")?;
    let step = Step::start("checking for KVM");
    let (accel, accel_why) = probe::accel(&places::cache(), arch).or_advise()?;
    step.done(format!("{accel}: {accel_why}"));

    let images = image::get(args.image.as_deref(), args.debug, arch)?;
    let image_stamp = node::stamp(&images.disk)?;
    let had_a_node = before.is_some() && folder.disk().exists();
    let same = before.filter(|b| b.image_stamp == image_stamp && folder.disk().exists());
    if had_a_node && same.is_none() {
        say!("The image is another than last time: a new node starts, the old one's disk goes.");
    }
    let renewed = same.is_none();
    if renewed {
        let step = Step::start("making the node's disk");
        node::make_disk(&images.disk, folder)?;
        step.done(format!("a copy of {}", images.disk.display()));
    }
    let serial =
        same.map_or_else(|| format!("demo-{}", uuid::Uuid::new_v4().simple()), |b| b.serial);
    let mut state = State {
        format: FORMAT,
        arch,
        started: host::clock::now(),
        image: images.disk.clone(),
        image_stamp,
        slot_bytes: images.slot.map(|b| b.0),
        serial,
        page_port: args.port,
        controller_port: args.controller_port,
        accel,
        accel_why,
        controller: None,
        node: None,
        tpm: None,
        timeline: Vec::new(),
    };
    folder.save(&state)?;

    let fleet = begin_controller(&mut state, folder, &images, renewed)?;
    if args.tpm {
        let (swtpm, _) = Swtpm::start_detached(&folder.node_dir()).or_advise()?;
        state.tpm = Some(swtpm);
        folder.save(&state)?;
    }
    let machine = node::machine(&state, folder, firmware, Bytes::mib(args.memory), args.cpus)?;
    // A log a boot: the summary speaks of the last one.
    let _ = std::fs::remove_file(folder.serial_log());
    let serial = SerialLog::follow(&folder.serial_log());
    state.started = host::clock::now();
    state.node = Some(start_detached(&machine, &folder.qemu_log()).or_advise()?);
    folder.save(&state)?;

    let limit = Duration::from_secs(args.timeout);
    let now = Instant::now();
    let mut boot = Boot { state, folder, fleet, serial, until: now + limit, limit, asked: now };
    boot.watch()?;
    folder.save(&boot.state)?;
    Ok(boot.state)
}

/// Says how to choose another if somebody else has the port.
fn check_free(port: u16, option: &str) -> anyhow::Result<()> {
    Forward::local(port, 0).check_free().map_err(|error| {
        let advice = format!(
            "stop the program on port {port} (`ss -ltnp` names it), or choose another with {option}"
        );
        out::advised(model::chain(&error), advice)
    })
}

fn begin_controller(
    state: &mut State,
    folder: &Folder,
    images: &Images,
    renewed: bool,
) -> anyhow::Result<Fleet> {
    let step = Step::start("starting the controller");
    let controller = fleet::start_controller(folder, state.controller_port, &images.registry)?;
    state.controller = Some(controller.clone());
    folder.save(state)?;
    let fleet = Fleet::connect(folder, &controller)?;
    if renewed {
        fleet.forget_node()?;
    }
    fleet.apply(&state.serial, &images.hello)?;
    let conf = fleet::conf(folder, state.controller_port, &state.serial)?;
    builder::image::set_config(&folder.disk(), &conf).or_advise()?;
    step.done(fleet.url());
    Ok(fleet)
}

/// A node on its way up.
struct Boot<'a> {
    state: State,
    folder: &'a Folder,
    fleet: Fleet,
    serial: SerialLog,
    until: Instant,
    limit: Duration,
    /// When the controller was last asked about the node.
    asked: Instant,
}

impl Boot<'_> {
    fn watch(&mut self) -> anyhow::Result<()> {
        let step = Step::start("booting the node");
        self.wait(&step, "", |boot| {
            let last = boot.serial.tail(1).pop().map(|l| l.text).unwrap_or_default();
            // A console that is told to be quiet says nothing; the controller hears all the same.
            let told = boot.serial.lines().iter().any(|line| node::is_milestone(&line.text));
            let up = told || boot.is_heard()?;
            Ok(if up { Look::Done } else { Look::NotYet(last) })
        })?;
        self.state.timeline = node::marks(&self.serial.lines());
        self.folder.save(&self.state)?;
        step.done(self.shown("init"));

        let step = Step::start("onboarding");
        self.wait(&step, "the controller has not heard of the node", |boot| {
            let last = boot.serial.tail(1).pop().map(|l| l.text).unwrap_or_default();
            Ok(if boot.is_heard()? { Look::Done } else { Look::NotYet(last) })
        })?;
        self.mark("onboarded");
        step.done(self.shown("onboarded"));

        let step = Step::start(format!("starting {} on the node", fleet::APP));
        let page = node::page(&self.state);
        self.wait(&step, "", |boot| {
            if boot.asked.elapsed() < ASK_EVERY {
                return Ok(Look::Same);
            }
            boot.asked = Instant::now();
            // The health check first: it is small and says that the app means to serve.
            let well = |path| page.get(path, PAGE_LIMIT).is_ok_and(|p| p.status == 200);
            if well("/healthz") && well("/") {
                return Ok(Look::Done);
            }
            Ok(Look::NotYet(fleet::words(&boot.fleet.node()?)))
        })?;
        self.mark("page answers");
        step.done(self.shown("page answers"));
        self.let_it_report();
        Ok(())
    }

    /// Waits a little for what the node tells of the app and of its memory, for the summary.
    fn let_it_report(&self) {
        let until = Instant::now() + REPORT_LIMIT;
        while Instant::now() < until {
            let told = self.fleet.node().is_ok_and(|node| {
                node.usage.is_some() && node.apps.iter().any(|a| a.app == fleet::APP && a.running)
            });
            if told {
                return;
            }
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Whether the node has onboarded, and been heard of since it was powered on.
    /// Asked too soon again, it says no.
    fn is_heard(&mut self) -> anyhow::Result<bool> {
        if self.asked.elapsed() < ASK_EVERY {
            return Ok(false);
        }
        self.asked = Instant::now();
        let node = self.fleet.node()?;
        let heard = node.seen.is_some_and(|at| at >= self.state.started);
        Ok(heard && node.registered.is_some())
    }

    /// Looks again and again, and at whether everything still lives.
    fn wait(
        &mut self,
        step: &Step,
        silence: &str,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Look>,
    ) -> anyhow::Result<()> {
        let mut last = silence.to_owned();
        loop {
            self.check_lives()?;
            match look(self)? {
                Look::Done => return Ok(()),
                Look::NotYet(words) if !words.is_empty() => {
                    step.note(words.clone());
                    last = words;
                }
                Look::NotYet(_) | Look::Same => {}
            }
            if Instant::now() >= self.until {
                return Err(fleet::not_up(self.limit, &last));
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn check_lives(&self) -> anyhow::Result<()> {
        if let Some((line, meaning)) = self.serial.failure() {
            bail!("the node cannot go on: {meaning}: {}", line.text);
        }
        if !self.state.node.as_ref().is_some_and(|n| n.is_alive()) {
            let said = node::tail(&self.folder.qemu_log(), 5).join("\n  ");
            bail!("QEMU ended; it said:\n  {said}");
        }
        if !self.state.controller.as_ref().is_some_and(|c| c.is_alive()) {
            let said = node::tail(&self.folder.controller_log(), 5).join("\n  ");
            bail!("the controller ended; it said:\n  {said}");
        }
        Ok(())
    }

    fn mark(&mut self, what: &str) {
        let at_ms = since(self.state.started);
        self.state.timeline.push(Mark { what: what.to_owned(), at_ms });
        // What is lost if this fails is a time in a summary.
        let _ = self.folder.save(&self.state);
    }

    fn shown(&self, what: &str) -> String {
        let mark = self.state.timeline.iter().find(|m| m.what == what);
        mark.map(|m| format!("{} after power-on", Seconds(Duration::from_millis(m.at_ms))))
            .unwrap_or_default()
    }
}

enum Look {
    /// It is there.
    Done,
    /// It is not, and this is how it stands.
    NotYet(String),
    /// Nothing was looked at.
    Same,
}

fn since(started: UnixMillis) -> u64 {
    host::clock::now().0.saturating_sub(started.0)
}
