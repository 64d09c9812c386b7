//! An app on a node of the lab.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use controller::view;
use host::qemu::Page;

use crate::device::Device;

/// One try to get a page.
const TRY: Duration = Duration::from_secs(3);

/// An app on a node, by its name at the controller.
#[derive(Debug)]
pub struct App<'a> {
    device: &'a mut Device,
    name: &'a str,
}

impl<'a> App<'a> {
    pub(crate) fn new(device: &'a mut Device, name: &'a str) -> App<'a> {
        App { device, name }
    }

    /// Asks the app's web server, through port 8080 of the node, until it answers. Any status is an
    /// answer.
    pub fn get(&mut self, path: &str) -> anyhow::Result<Page> {
        let limit = self.device.app_limit();
        let until = Instant::now() + limit;
        let page = self.device.page().context("no port of this machine leads to the node")?.clone();
        loop {
            let tried = page.get(path, TRY);
            if let Ok(page) = tried {
                return Ok(page);
            }
            self.device.check_alive()?;
            if Instant::now() >= until {
                bail!(
                    "{}{path} did not answer within {} s: {}",
                    page.at,
                    limit.as_secs(),
                    self.words()
                );
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until a line of its output that contains `text` is at the controller.
    pub fn says(&mut self, text: &str) -> anyhow::Result<String> {
        let until = Instant::now() + self.device.app_limit();
        loop {
            let lines = self.device.app_log(self.name)?;
            if let Some(line) = lines.iter().find(|line| line.contains(text)) {
                return Ok(line.clone());
            }
            self.device.check_alive()?;
            if Instant::now() >= until {
                bail!("{} did not say {text:?}, but: {lines:#?}", self.name);
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Waits until the node says that it runs.
    pub fn running(&mut self) -> anyhow::Result<view::AppOnDevice> {
        let name = self.name.to_owned();
        let of = move |d: &view::Device| d.apps.iter().find(|a| a.app == name).cloned();
        let limit = self.device.app_limit();
        let device = self
            .device
            .wait_for("running its app", limit, |d| of(d).is_some_and(|app| app.running))?;
        of(&device).context("the app went away")
    }

    fn words(&self) -> String {
        match self.device.view() {
            Ok(node) => format!("{:?} {:?} {:?}", node.apps, node.pending, node.problems),
            Err(e) => format!("{e:#}"),
        }
    }
}
