//! Nodes that take what they are told and say so, for rollouts.

use std::collections::BTreeMap;
use std::time::Duration;

use api::convert::info;
use controller::view::Rollout;
use futures_util::future::join_all;
use hyper::StatusCode;
use model::desired::Device;
use model::reported::{AppState, AppStatus, AppUse};
use model::{DeviceId, Diagnosis, Problem, Who};

use crate::common::{Home, Node, device, now, wait_ms};

/// A node that takes what it is told, and says so.
pub(crate) struct Edge {
    pub(crate) node: Node,
    id: DeviceId,
    hash: String,
    pub(crate) told: Option<Device>,
    /// How its apps fail from the version of this image on.
    pub(crate) fails: Option<(&'static str, &'static str)>,
}

impl Edge {
    /// One round of a node: it asks for its config, says how its apps are and that it has it.
    pub(crate) async fn live(&mut self) {
        if let Some((hash, told)) = self.node.config(self.id, &self.hash, b"").await.unwrap() {
            self.hash = hash;
            self.told = Some(*told);
        }
        let told = self.told.as_ref().unwrap();
        for app in told.apps.values() {
            let image = told.contents.values().find(|c| c.name == app.name).unwrap();
            let fails = self.fails.filter(|(of, _)| image.url.ends_with(of));
            let problem = fails.map(|(_, text)| {
                Problem::new(text, Diagnosis::of(Who::Operator, "push the image"), now())
            });
            let status = AppStatus {
                id: app.id,
                version: app.version.clone(),
                name: app.name.clone(),
                disable_logs: false,
                state: if problem.is_some() { AppState::Broken } else { AppState::Running },
                running_since: Some(now()),
                starts: 1,
                restart: app.restart,
                purge: app.purge,
                volumes: app.volumes.iter().map(|v| v.volume).collect(),
                mounted: Vec::new(),
                used: AppUse::default(),
                problem,
            };
            let facts = info::AppFacts {
                status: &status,
                network: None,
                wanted_volumes: &BTreeMap::new(),
                volumes: &BTreeMap::new(),
                contents: &BTreeMap::new(),
            };
            let payload = info::app(self.id, now(), &facts);
            let (status, _) = self.node.post(&format!("id/{}/info", self.id), &payload).await;
            assert_eq!(status, StatusCode::CREATED);
        }
        // It may have been given something new meanwhile; that is for the next round.
        self.node.config(self.id, &self.hash, b"").await.unwrap();
    }

    pub(crate) fn image(&self) -> &str {
        &self.told.as_ref().unwrap().contents.values().next().unwrap().url
    }

    pub(crate) fn counters(&self) -> (u32, u32) {
        let app = self.told.as_ref().unwrap().apps.values().next().unwrap();
        (app.restart, app.purge)
    }
}

pub(crate) fn web(image: &str, memory: &str) -> String {
    format!(
        "kind: App\nname: web\nspec: {{device: \"*\", image: \"web:{image}\", datastore: far, memory: {memory}}}\n---\n"
    )
}

pub(crate) const FAR: &str =
    "kind: Datastore\nname: far\nspec: {type: registry, host: registry.example}\n---\n";

pub(crate) async fn edges(home: &Home, count: usize) -> Vec<Edge> {
    let names: Vec<String> = (0..count).map(|n| format!("edge-{n:02}")).collect();
    let documents: String = names.iter().map(|n| device(n, n)).collect();
    let text = documents + FAR + &web("1", "64MiB");
    home.operator().apply(&text, false).await.unwrap();
    let begin = names.iter().map(|name| async {
        let node = home.node(name);
        let id = node.onboard().await;
        let mut edge = Edge { node, id, hash: String::new(), told: None, fails: None };
        edge.live().await;
        edge
    });
    join_all(begin).await
}

/// All nodes speak, time goes by, the controller looks.
pub(crate) async fn round(edges: &mut [Edge], seconds: u64) {
    join_all(edges.iter_mut().map(Edge::live)).await;
    wait_ms(seconds * 1000);
    tokio::time::sleep(Duration::from_millis(1300)).await;
}

pub(crate) async fn shown(home: &Home, name: &str) -> Rollout {
    home.operator().ask(&format!("/rollouts/{name}")).await.unwrap()
}

pub(crate) fn plan(documents: &str, more: &str) -> String {
    let documents = serde_json::to_string(documents).unwrap();
    format!(
        r#"{{"documents": {documents}, "gate": {{"steady_seconds": 30, "tolerate_seconds": 30}}{more}}}"#
    )
}

pub(crate) async fn until_it_rests(home: &Home, edges: &mut [Edge], name: &str) -> Rollout {
    for _ in 0..40 {
        round(edges, 31).await;
        let rollout = shown(home, name).await;
        if rollout.phase != "running" {
            return rollout;
        }
    }
    panic!("it runs for ever: {:#?}", shown(home, name).await);
}
