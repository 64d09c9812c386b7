//! What a simulated node makes of its config: a pure model, advanced once a poll.
//!
//! ```text
//! content   Downloading ─▶ Downloaded ─▶ Loaded
//! volume    (as its content) ─▶ Creating ─▶ Created
//! instance  Init ─▶ Online
//! app       (as its volumes) ─▶ Booting ─▶ Running       restart, purge: back to Booting
//! base OS   (as its content) ─▶ Updating ─▶ reboot, Testing ─▶ Updated │ back to the old one
//! ```
//!
//! It downloads nothing, and can be told to fail. One trait of EVE is kept because controllers must
//! live with it: an app whose network instance was not there when the app came stays in error until
//! the bytes of the app change (EVE API, reference healing).

use std::collections::BTreeMap;

use api::pb::config::{EdgeDevConfig, VolumeContentOriginType};
use api::pb::info::ZSwState;
use api::wire;
use sha2::{Digest as _, Sha256};

/// What a node reports on, by the id it has in the config.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The node itself.
    Device,
    /// A content tree.
    Content(String),
    /// A volume and its generation.
    Volume(String, i64),
    /// A network instance.
    Instance(String),
    /// An app.
    App(String),
}

/// Something that does not work on this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The app of this display name does not start.
    App(String),
    /// The app of this display name starts, runs, and then is found unhealthy.
    Health(String),
    /// What this content tree (display name or path) holds cannot be downloaded.
    Image(String),
    /// A new base OS boots and does not pass its test.
    BaseOs,
}

/// Where an object stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// `ZSwState`; network instances use INITIAL, INSTALLED (online) and ERROR.
    pub state: ZSwState,
    /// What is wrong; empty if nothing is.
    pub error: String,
    /// Polls since it came into this state.
    age: u8,
    /// SHA-256 of what the config says of it.
    bytes: [u8; 32],
    /// It referred to what was not there when it came.
    stale: Option<String>,
    /// It must be reported.
    news: bool,
}

/// Polls from a base OS's first boot until its test has passed.
const TEST_POLLS: u8 = 2;
/// Polls an app takes to boot, if not said otherwise.
const BOOT_POLLS: u8 = 1;

/// How a base OS update stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Update {
    /// None is under way.
    #[default]
    None,
    /// Its content is coming.
    Downloading,
    /// It is written to the other partition.
    Updating,
    /// It runs on trial.
    Testing,
    /// It was put back.
    Failed,
}

/// A node.
#[derive(Debug, Clone)]
pub struct Node {
    told: Option<Box<EdgeDevConfig>>,
    standings: BTreeMap<Subject, Standing>,
    failures: Vec<Failure>,
    device_news: bool,
    boot_polls: u8,
    testing: u8,
    /// The version that runs.
    pub version: String,
    /// The version in the other partition; empty if there is none.
    pub other_version: String,
    /// Whether it runs from IMGB.
    pub second_slot: bool,
    /// How the update of the base OS stands.
    pub update: Update,
    /// How often it has booted.
    pub boots: u32,
    /// The reboot counter that was last seen.
    pub reboot_counter: Option<u32>,
}

impl Default for Node {
    fn default() -> Node {
        Node {
            told: None,
            standings: BTreeMap::new(),
            failures: Vec::new(),
            device_news: true,
            boot_polls: BOOT_POLLS,
            testing: 0,
            version: "16.0.0-sim-amd64".to_owned(),
            other_version: String::new(),
            second_slot: false,
            update: Update::None,
            boots: 1,
            reboot_counter: None,
        }
    }
}

impl Node {
    /// The config in force.
    pub fn told(&self) -> Option<&EdgeDevConfig> {
        self.told.as_deref()
    }

    /// Where an object stands.
    pub fn standing(&self, subject: &Subject) -> Option<&Standing> {
        self.standings.get(subject)
    }

    /// Where the app of this display name stands.
    pub fn app(&self, name: &str) -> Option<&Standing> {
        let app = self.told()?.apps.iter().find(|a| a.displayname == name)?;
        self.standing(&Subject::App(app.uuidandversion.as_ref()?.uuid.clone()))
    }

    /// Whether everything the config asks for is as it asks.
    pub fn settled(&self) -> bool {
        use ZSwState::{CreatedVolume, Halted, Installed, Loaded, Running};
        let done = |s: &Standing| {
            s.error.is_empty()
                && matches!(s.state, Loaded | CreatedVolume | Installed | Running | Halted)
        };
        self.update == Update::None && self.standings.values().all(done)
    }

    /// From now on this does not work.
    pub fn fail(&mut self, what: Failure) {
        self.failures.push(what);
    }

    /// The app of this display name does not start.
    pub fn fail_app(&mut self, name: &str) {
        self.fail(Failure::App(name.to_owned()));
    }

    /// Everything works again; what failed is tried anew.
    pub fn heal(&mut self) {
        self.failures.clear();
        for standing in self.standings.values_mut().filter(|s| s.state == ZSwState::Error) {
            if standing.stale.is_none() {
                standing.go(ZSwState::Initial, String::new());
            }
        }
    }

    /// How many polls apps take to boot.
    pub fn boots_apps_in(&mut self, polls: u8) {
        self.boot_polls = polls;
    }

    /// Takes a config. Whose it is and how old was checked before.
    pub fn take(&mut self, config: EdgeDevConfig) {
        let counter = config.reboot.as_ref().map(|r| r.counter);
        // The first counter ever seen is only stored; any difference later reboots.
        if let (Some(had), Some(now)) = (self.reboot_counter, counter)
            && had != now
        {
            self.reboot();
        }
        self.reboot_counter = counter;
        let wanted = subjects(&config);
        self.standings.retain(|subject, _| wanted.contains_key(subject));
        for (subject, bytes) in wanted {
            let stale = missing_instance(&config, &subject);
            match self.standings.get_mut(&subject) {
                Some(standing) if standing.bytes == bytes => {}
                Some(standing) => {
                    standing.bytes = bytes;
                    standing.stale = stale;
                    // Another setting of what runs makes it start again; content stays.
                    if matches!(subject, Subject::App(_)) {
                        standing.go(ZSwState::Initial, String::new());
                    }
                    standing.news = true;
                }
                None => {
                    let standing = Standing {
                        state: ZSwState::Initial,
                        error: String::new(),
                        age: 0,
                        bytes,
                        stale,
                        news: true,
                    };
                    self.standings.insert(subject, standing);
                }
            }
        }
        self.told = Some(Box::new(config));
        self.device_news = true;
    }

    /// The power goes and comes back: apps start again.
    pub fn reboot(&mut self) {
        self.boots += 1;
        self.device_news = true;
        for (subject, standing) in &mut self.standings {
            if matches!(subject, Subject::App(_)) && standing.state == ZSwState::Running {
                standing.go(ZSwState::Booting, String::new());
            }
        }
    }

    /// One poll goes by.
    pub fn tick(&mut self) {
        let Some(told) = self.told.take() else { return };
        self.update_base_os(&told);
        for content in &told.content_info {
            let subject = Subject::Content(content.uuid.clone());
            let broken = self.fails(|f| {
                matches!(f, Failure::Image(n) if *n == content.display_name || *n == content.url)
            });
            self.advance(&subject, |s| match s.state {
                _ if broken => (ZSwState::Error, format!("cannot download {}", content.url)),
                ZSwState::Initial => (ZSwState::DownloadStarted, String::new()),
                ZSwState::DownloadStarted => (ZSwState::Downloaded, String::new()),
                _ => (ZSwState::Loaded, String::new()),
            });
        }
        for volume in &told.volumes {
            let origin = volume.origin.as_ref();
            let download = i32::from(VolumeContentOriginType::VcotDownload);
            let content = origin
                .filter(|o| o.r#type == download)
                .map(|o| Subject::Content(o.download_content_tree_id.clone()));
            let waits = self.waits_for(content.as_ref(), ZSwState::Loaded);
            let subject = Subject::Volume(volume.uuid.clone(), volume.generation_count);
            self.advance(&subject, |s| match s.state {
                _ if waits.is_some() => waits.clone().unwrap_or((s.state, String::new())),
                ZSwState::CreatingVolume | ZSwState::CreatedVolume => {
                    (ZSwState::CreatedVolume, String::new())
                }
                _ => (ZSwState::CreatingVolume, String::new()),
            });
        }
        for instance in &told.network_instances {
            let Some(id) = instance.uuidandversion.as_ref() else { continue };
            self.advance(&Subject::Instance(id.uuid.clone()), |_| {
                (ZSwState::Installed, String::new())
            });
        }
        for app in &told.apps {
            let Some(id) = app.uuidandversion.as_ref() else { continue };
            let subject = Subject::App(id.uuid.clone());
            let refs = app.volume_ref_list.iter();
            let waits = refs
                .map(|v| Subject::Volume(v.uuid.clone(), v.generation_count))
                .find_map(|v| self.waits_for(Some(&v), ZSwState::CreatedVolume));
            let name = &app.displayname;
            let dead = self.fails(|f| matches!(f, Failure::App(n) if n == name));
            let sick = self.fails(|f| matches!(f, Failure::Health(n) if n == name));
            let boot_polls = self.boot_polls;
            self.advance(&subject, |s| match (&s.stale, s.state) {
                (Some(missing), _) => {
                    (ZSwState::Error, format!("there is no network instance {missing}"))
                }
                _ if !app.activate => (ZSwState::Halted, String::new()),
                _ if waits.is_some() => waits.clone().unwrap_or((s.state, String::new())),
                (_, ZSwState::Booting) if s.age >= boot_polls && dead => {
                    (ZSwState::Error, format!("{name} ended with status 1"))
                }
                (_, ZSwState::Booting) if s.age >= boot_polls => (ZSwState::Running, String::new()),
                (_, ZSwState::Running) if sick && s.age >= 1 => {
                    (ZSwState::Error, format!("{name} fails its health check"))
                }
                (_, state @ (ZSwState::Booting | ZSwState::Running)) => (state, String::new()),
                (_, ZSwState::Error) if dead || sick => (ZSwState::Error, s.error.clone()),
                _ => (ZSwState::Booting, String::new()),
            });
        }
        self.told = Some(told);
    }

    fn update_base_os(&mut self, told: &EdgeDevConfig) {
        let Some(base) = told.baseos.as_ref().filter(|b| b.activate) else { return };
        let new = &base.base_os_version;
        let content = Subject::Content(base.content_tree_uuid.clone());
        let loaded = self.standing(&content).is_some_and(|s| s.state == ZSwState::Loaded);
        let before = self.update;
        self.update = match before {
            Update::None if *new == self.version => Update::None,
            Update::Failed if *new == self.other_version => Update::Failed,
            Update::None | Update::Downloading | Update::Failed if !loaded => Update::Downloading,
            Update::None | Update::Downloading | Update::Failed => Update::Updating,
            Update::Updating => {
                self.other_version = std::mem::replace(&mut self.version, new.clone());
                self.second_slot = !self.second_slot;
                self.testing = 0;
                self.reboot();
                Update::Testing
            }
            Update::Testing if self.testing < TEST_POLLS => {
                self.testing += 1;
                Update::Testing
            }
            Update::Testing if self.fails(|f| *f == Failure::BaseOs) => {
                std::mem::swap(&mut self.version, &mut self.other_version);
                self.second_slot = !self.second_slot;
                self.reboot();
                Update::Failed
            }
            Update::Testing => Update::None,
        };
        self.device_news |= self.update != before;
    }

    /// What an object has to say while another is not ready; `None` when it is.
    fn waits_for(&self, on: Option<&Subject>, ready: ZSwState) -> Option<(ZSwState, String)> {
        let on = on?;
        match self.standing(on) {
            Some(s) if s.state == ready => None,
            Some(s) => Some((s.state, s.error.clone())),
            None => Some((ZSwState::Error, format!("{on:?} is missing"))),
        }
    }

    fn fails(&self, which: impl Fn(&Failure) -> bool) -> bool {
        self.failures.iter().any(which)
    }

    fn advance(&mut self, subject: &Subject, next: impl FnOnce(&Standing) -> (ZSwState, String)) {
        if let Some(standing) = self.standings.get_mut(subject) {
            let (state, error) = next(standing);
            if state == standing.state && error == standing.error {
                standing.age = standing.age.saturating_add(1);
            } else {
                standing.go(state, error);
            }
        }
    }

    /// What has changed since it was asked last.
    pub fn news(&mut self) -> Vec<Subject> {
        let device = std::mem::take(&mut self.device_news).then_some(Subject::Device);
        let changed = self
            .standings
            .iter_mut()
            .filter_map(|(subject, s)| std::mem::take(&mut s.news).then(|| subject.clone()));
        device.into_iter().chain(changed).collect()
    }

    /// Everything is news again: the controller asks for it by another epoch.
    pub fn tell_all(&mut self) {
        self.device_news = true;
        self.standings.values_mut().for_each(|s| s.news = true);
    }
}

impl Standing {
    fn go(&mut self, state: ZSwState, error: String) {
        self.news |= state != self.state || error != self.error;
        (self.state, self.error, self.age) = (state, error, 0);
    }
}

/// All objects of a config that a node reports on, with the hash of what is said of each.
fn subjects(config: &EdgeDevConfig) -> BTreeMap<Subject, [u8; 32]> {
    fn hash(bytes: &[u8]) -> [u8; 32] {
        Sha256::digest(bytes).into()
    }
    let contents = config
        .content_info
        .iter()
        .map(|c| (Subject::Content(c.uuid.clone()), hash(&wire::encode(c))));
    let volumes = config
        .volumes
        .iter()
        .map(|v| (Subject::Volume(v.uuid.clone(), v.generation_count), hash(&wire::encode(v))));
    let instances = config.network_instances.iter().filter_map(|n| {
        let id = n.uuidandversion.as_ref()?;
        Some((Subject::Instance(id.uuid.clone()), hash(&wire::encode(n))))
    });
    let apps = config.apps.iter().filter_map(|a| {
        let id = a.uuidandversion.as_ref()?;
        Some((Subject::App(id.uuid.clone()), hash(&wire::encode(a))))
    });
    contents.chain(volumes).chain(instances).chain(apps).collect()
}

/// The network instance that an app refers to and that the config lacks.
fn missing_instance(config: &EdgeDevConfig, subject: &Subject) -> Option<String> {
    let Subject::App(id) = subject else { return None };
    let has = |wanted: &str| {
        let mut ids = config.network_instances.iter().filter_map(|n| n.uuidandversion.as_ref());
        ids.any(|n| n.uuid == wanted)
    };
    let app =
        config.apps.iter().find(|a| a.uuidandversion.as_ref().is_some_and(|u| u.uuid == *id))?;
    app.interfaces.iter().map(|i| &i.network_id).find(|id| !has(id)).cloned()
}

#[cfg(test)]
mod tests {
    use api::pb::config::{
        AppInstanceConfig, BaseOs, ContentTree, DeviceOpsCmd, NetworkAdapter,
        NetworkInstanceConfig, UuiDandVersion, Volume, VolumeContentOrigin, VolumeRef,
    };

    use super::*;

    fn id(text: &str) -> Option<UuiDandVersion> {
        Some(UuiDandVersion { uuid: text.into(), version: "1".into() })
    }

    fn config() -> EdgeDevConfig {
        EdgeDevConfig {
            content_info: vec![ContentTree {
                uuid: "c".into(),
                url: "hello:1".into(),
                ..ContentTree::default()
            }],
            volumes: vec![Volume {
                uuid: "v".into(),
                origin: Some(VolumeContentOrigin {
                    r#type: VolumeContentOriginType::VcotDownload.into(),
                    download_content_tree_id: "c".into(),
                }),
                ..Volume::default()
            }],
            network_instances: vec![NetworkInstanceConfig {
                uuidandversion: id("n"),
                ..NetworkInstanceConfig::default()
            }],
            apps: vec![AppInstanceConfig {
                uuidandversion: id("a"),
                displayname: "hello".into(),
                activate: true,
                volume_ref_list: vec![VolumeRef { uuid: "v".into(), ..VolumeRef::default() }],
                interfaces: vec![NetworkAdapter {
                    network_id: "n".into(),
                    ..NetworkAdapter::default()
                }],
                ..AppInstanceConfig::default()
            }],
            ..EdgeDevConfig::default()
        }
    }

    /// The states of the app, one a poll.
    fn life(node: &mut Node, polls: usize) -> Vec<ZSwState> {
        (0..polls)
            .map(|_| {
                node.tick();
                node.app("hello").unwrap().state
            })
            .collect()
    }

    #[test]
    fn an_app_runs_when_its_image_is_there_and_its_volume_is_made() {
        use ZSwState::*;
        let mut node = Node::default();
        node.take(config());
        let states =
            [DownloadStarted, Downloaded, CreatingVolume, Booting, Booting, Running, Running];
        assert_eq!(life(&mut node, 7), states);
        assert!(node.settled());
        node.news();
        assert_eq!(node.news(), []);
        node.reboot();
        assert_eq!(node.news(), [Subject::Device, Subject::App("a".into())]);
        assert_eq!(life(&mut node, 3), [Booting, Running, Running]);
    }

    #[test]
    fn what_is_told_to_fail_fails_and_says_why_until_it_is_healed() {
        for (failure, why) in [
            (Failure::App("hello".into()), "hello ended with status 1"),
            (Failure::Health("hello".into()), "hello fails its health check"),
            (Failure::Image("hello:1".into()), "cannot download hello:1"),
        ] {
            let mut node = Node::default();
            node.take(config());
            node.fail(failure);
            life(&mut node, 12);
            let app = node.app("hello").unwrap();
            assert_eq!((app.state, app.error.as_str()), (ZSwState::Error, why));
            assert!(!node.settled());
            node.heal();
            life(&mut node, 12);
            assert!(node.settled(), "{why}");
        }
    }

    #[test]
    fn an_app_before_its_network_stays_in_error_until_its_bytes_change() {
        let mut node = Node::default();
        let mut told = config();
        let instances = std::mem::take(&mut told.network_instances);
        node.take(told.clone());
        life(&mut node, 8);
        told.network_instances = instances;
        node.take(told.clone());
        assert_eq!(life(&mut node, 8).last(), Some(&ZSwState::Error));
        told.apps[0].uuidandversion = id("a").map(|i| UuiDandVersion { version: "2".into(), ..i });
        node.take(told);
        assert_eq!(life(&mut node, 8).last(), Some(&ZSwState::Running));
    }

    #[test]
    fn a_changed_reboot_counter_reboots_once_and_the_first_one_does_not() {
        let mut node = Node::default();
        let with = |counter| EdgeDevConfig {
            reboot: Some(DeviceOpsCmd { counter, ..DeviceOpsCmd::default() }),
            ..EdgeDevConfig::default()
        };
        for (counter, boots) in [(4, 1), (4, 1), (5, 2), (3, 3)] {
            node.take(with(counter));
            assert_eq!(node.boots, boots, "{counter}");
        }
    }

    #[test]
    fn a_base_os_is_tried_and_kept_or_put_back() {
        for fails in [false, true] {
            let mut node = Node::default();
            let old = node.version.clone();
            let baseos = BaseOs {
                content_tree_uuid: "c".into(),
                activate: true,
                base_os_version: "17".into(),
                ..BaseOs::default()
            };
            node.take(EdgeDevConfig { baseos: Some(baseos), ..config() });
            if fails {
                node.fail(Failure::BaseOs);
            }
            (0..12).for_each(|_| node.tick());
            let (want, boots) = if fails { (old, 3) } else { ("17".to_owned(), 2) };
            assert_eq!((&node.version, node.boots), (&want, boots));
            assert_eq!(node.update, if fails { Update::Failed } else { Update::None });
        }
    }
}
