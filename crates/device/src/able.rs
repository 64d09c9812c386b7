//! What this node cannot do yet of what the API can say: such objects are refused, each in words,
//! and the rest goes on. Whoever teaches the node something takes its refusal out here.

use model::desired::{
    App, DatastoreKind, Device, ImageFormat, Link, NetworkInstance, NetworkOptions, ObjectKind,
    Port, PortSelector, Refused, UserData, Virtualization, environment, is_cloud_init,
};

/// The setting that lets passwords go where everybody on the way can read them.
const IN_CLEAR: &str = "datastore.http.security.allowinsecureauth";

/// Takes out of `told` what the node cannot do and adds it to what was refused.
pub fn limit(told: &mut Device) {
    let mut refused = Vec::new();
    let no = |kind, id: &dyn std::fmt::Display, name: &str, text: String| Refused {
        kind,
        id: id.to_string(),
        name: name.to_owned(),
        text,
    };
    told.ports.retain(|name, port| {
        let why = port_problem(port);
        refused.extend(why.map(|w| no(ObjectKind::Port, name, &port.options.alias, w.into())));
        if why.is_none() && port.options.proxy.is_some() {
            let text = "networks.entProxy: proxies are not supported yet; the port is used without";
            refused.push(no(ObjectKind::Port, name, &port.options.alias, text.into()));
        }
        why.is_none()
    });
    let in_clear = told.items.get(IN_CLEAR).is_some_and(|v| v.trim().eq_ignore_ascii_case("true"));
    told.datastores.retain(|id, store| {
        let why = match store.kind {
            DatastoreKind::Https | DatastoreKind::Registry => None,
            // Whoever listens would have them, so somebody must say that this is as it should be.
            DatastoreKind::Http => store
                .credentials
                .as_ref()
                .filter(|_| !in_clear)
                .map(|_| "apiKey: passwords are not sent over plain http; use https"),
            _ => Some("dType: only http (1), https (2) and registry (5) are supported yet"),
        };
        refused.extend(why.map(|w| no(ObjectKind::Datastore, id, &store.host, w.into())));
        why.is_none()
    });
    told.contents.retain(|id, content| {
        let able = matches!(
            content.format,
            ImageFormat::Raw | ImageFormat::Qcow2 | ImageFormat::Container | ImageFormat::Iso
        );
        let text = "iformat: only RAW (1), QCOW2 (3), CONTAINER (8) and ISO (9) are supported yet";
        if !able {
            refused.push(no(ObjectKind::Content, id, &content.name, text.into()));
        }
        able
    });
    told.network_instances.retain(|id, network| {
        let why = network_problem(network);
        let name = &network.name;
        refused.extend(why.map(|w| no(ObjectKind::NetworkInstance, id, name, w.into())));
        why.is_none()
    });
    told.apps.retain(|id, app| {
        let why = take_environment(app).err().or_else(|| app_problem(app).map(str::to_owned));
        let able = why.is_none();
        refused.extend(why.map(|w| no(ObjectKind::App, id, &app.name, w)));
        able
    });
    for (kind, field, there) in [
        (ObjectKind::BaseOs, "baseos", told.base_os.take().is_some()),
        (ObjectKind::Node, "disks", told.disks.take().is_some()),
        (ObjectKind::Node, "edgeview", told.edge_view.take().is_some()),
    ] {
        if there {
            refused.push(no(kind, &field, "", format!("{field}: not supported yet")));
        }
    }
    for (id, patch) in std::mem::take(&mut told.patches) {
        let text = "patchEnvelopes: not supported yet";
        refused.push(no(ObjectKind::Patch, &id, &patch.name, text.into()));
    }
    for name in std::mem::take(&mut told.enrolments).into_keys() {
        let text = "scep_profiles: not supported yet";
        refused.push(no(ObjectKind::Enrolment, &name, "", text.into()));
    }
    for port in std::mem::take(&mut told.port_access).into_keys() {
        refused.push(no(ObjectKind::PortAccess, &port, "", "pnacs: not supported yet".into()));
    }
    told.refused.append(&mut refused);
}

fn port_problem(port: &Port) -> Option<&'static str> {
    match port.link {
        Link::Vlan | Link::Bond => {
            return Some("systemAdapterList.lowerLayerName: VLANs and bonds are not supported yet");
        }
        Link::Wifi(_) | Link::Cellular(_) => {
            return Some("deviceIoList.ptype: only Ethernet (1) is supported yet");
        }
        Link::Ethernet => {}
    }
    (port.options.family == model::desired::Family::V6Only)
        .then_some("networks.type: networks of IP version 6 only are not supported yet")
}

fn network_problem(network: &NetworkInstance) -> Option<&'static str> {
    let NetworkOptions { routes, access_ports, propagate_routes, .. } = &network.options;
    if network.port == Some(PortSelector::All) {
        Some("port.name: networks with several ports are not supported yet")
    } else if !routes.is_empty() {
        Some("static_routes: not supported yet")
    } else if *propagate_routes {
        Some("propagate_connected_routes: not supported yet")
    } else if !access_ports.is_empty() {
        Some("vlan_access_ports: VLANs are not supported yet")
    } else {
        None
    }
}

/// Sealed user data of a container is its environment, as clear one is.
fn take_environment(app: &mut App) -> Result<(), String> {
    if app.virtualization != Virtualization::Container {
        return Ok(());
    }
    let Some(data) = &app.user_data else { return Ok(()) };
    if is_cloud_init(data.text()) {
        return Err("userData: cloud-init for containers is not supported yet".to_owned());
    }
    // The line itself stays out of the words when it is secret.
    app.environment = environment(data.text()).map_err(|line| match data {
        UserData::Plain(_) => format!("userData: {line:?} is not a line KEY=VALUE"),
        UserData::Sealed(_) => "userData: a sealed line is not KEY=VALUE".to_owned(),
    })?;
    app.user_data = None;
    Ok(())
}

fn app_problem(app: &App) -> Option<&'static str> {
    if !app.hardware.is_empty() {
        Some("adapters: giving hardware to apps is not supported yet")
    } else if app.interfaces.iter().any(|i| i.access_vlan.is_some()) {
        Some("interfaces.access_vlan_id: VLANs are not supported yet")
    } else if app.options.snapshots.as_ref().is_some_and(|s| !s.wanted.is_empty()) {
        Some("snapshot: snapshots are not supported yet")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use model::desired::{AppOptions, BaseOs, Machine};
    use model::{Bytes, Id, Secret};

    use super::*;

    fn app(number: u8) -> App {
        App {
            id: Id::new(uuid::Uuid::from_bytes([number; 16])),
            version: String::new(),
            name: format!("app-{number}"),
            activate: true,
            vcpus: 1,
            memory: Bytes::mib(64),
            virtualization: Virtualization::Container,
            volumes: Vec::new(),
            interfaces: Vec::new(),
            restart: 0,
            purge: 0,
            environment: Vec::new(),
            user_data: None,
            start_delay: Duration::ZERO,
            disable_logs: false,
            machine: Machine::default(),
            hardware: Vec::new(),
            options: AppOptions::default(),
        }
    }

    fn told(apps: impl IntoIterator<Item = App>) -> Device {
        let mut told = Device::new(Id::new(uuid::Uuid::from_bytes([9; 16])));
        told.apps = apps.into_iter().map(|a| (a.id, a)).collect::<BTreeMap<_, _>>();
        told
    }

    #[test]
    fn sealed_user_data_of_a_container_is_its_environment() {
        let sealed = |text: &str| {
            let mut app = app(1);
            app.user_data = Some(UserData::Sealed(Secret::new(text)));
            let mut told = told([app]);
            limit(&mut told);
            told
        };
        let good = sealed("A=1\n# no\nB=2\n");
        let app = good.apps.values().next().unwrap();
        assert_eq!((app.environment.join(","), &app.user_data), ("A=1,B=2".to_owned(), &None));
        let bad = sealed("hunter2");
        assert!(bad.apps.is_empty());
        assert!(!format!("{:?}", bad.refused).contains("hunter2"));
        assert!(sealed("#cloud-config\n").refused[0].text.contains("cloud-init"));
    }

    #[test]
    fn passwords_go_over_plain_http_only_where_the_settings_allow_it() {
        let store = |kind| model::desired::Datastore {
            id: Id::new(uuid::Uuid::from_bytes([4; 16])),
            kind,
            host: "store".to_owned(),
            prefix: String::new(),
            trust_pem: Vec::new(),
            region: String::new(),
            credentials: Some(model::desired::Credentials {
                user: Secret::new("u"),
                password: Secret::new("p"),
            }),
        };
        for (kind, setting, kept) in [
            (DatastoreKind::Http, None, false),
            (DatastoreKind::Http, Some("false"), false),
            (DatastoreKind::Http, Some("True"), true),
            (DatastoreKind::Https, None, true),
        ] {
            let mut told = told([]);
            let store = store(kind);
            told.datastores.insert(store.id, store);
            told.items = setting.map(|v| (IN_CLEAR.to_owned(), v.to_owned())).into_iter().collect();
            limit(&mut told);
            assert_eq!(!told.datastores.is_empty(), kept, "{kind:?} {setting:?}");
        }
    }

    #[test]
    fn what_is_the_nodes_own_is_refused_in_words() {
        let mut told = told([]);
        let content = Id::new(uuid::Uuid::from_bytes([3; 16]));
        told.base_os = Some(BaseOs { content, version: "1".to_owned(), activate: true, retry: 0 });
        limit(&mut told);
        assert_eq!(told.base_os, None);
        assert_eq!(told.refused[0].text, "baseos: not supported yet");
    }
}
