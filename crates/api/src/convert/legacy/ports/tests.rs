use super::*;

fn read(file: &str) -> LegacyPorts {
    ports(file.as_bytes()).unwrap_or_else(|e| panic!("{}", model::chain(&e))).unwrap()
}

/// A file with a good port, and one more of these fields.
fn beside(fields: &str) -> LegacyPorts {
    read(&format!(
        r#"{{"Version": 1, "Ports": [
            {{"IfName": "eth0", "IsMgmt": true, "Dhcp": 4}}, {{{fields}}}]}}"#
    ))
}

#[track_caller]
fn refuses(fields: &str, text: &str) {
    let found = beside(fields);
    assert_eq!(found.ports.len(), 1, "{fields}");
    let [why] = found.refused.as_slice() else { panic!("{:?}", found.refused) };
    assert!(why.text.contains(text), "{}", why.text);
}

#[track_caller]
fn refuses_all(file: &str, text: &str) {
    let why = ports(file.as_bytes()).expect_err(file);
    let said = model::chain(&why);
    assert!(said.contains(text), "{said}");
}

/// The second example of EVE's docs/CONFIG.md, with the time of the newer docs.
#[test]
fn a_static_port_and_one_with_dhcp() {
    let found = read(
        r#"{
            "Version": 1,
            "TimePriority": "2021-05-20T22:13:31.07683525Z",
            "Ports": [
                {
                    "AddrSubnet": "38.108.181.238/24", "Dhcp": 1, "DnsServers": ["8.8.8.8"],
                    "DomainName": "example.com", "Free": true, "Gateway": "38.108.181.254",
                    "IfName": "eth0", "Name": "Management1", "IsMgmt": true,
                    "NtpServer": "38.108.181.254", "NetworkProxyEnable": false,
                    "NetworkProxyURL": "", "Pacfile": "", "Proxies": null
                },
                {"Dhcp": 4, "Free": true, "IfName": "eth1", "Name": "Management2", "IsMgmt": true}
            ]
        }"#,
    );
    assert_eq!(found.made, Some(UnixMillis(1_621_548_811_076)));
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let [first, second] = found.ports.values().collect::<Vec<_>>()[..] else { panic!() };
    assert_eq!((first.name.as_str(), first.interface.as_str()), ("eth0", "eth0"));
    assert_eq!(first.options.alias, "Management1");
    assert_eq!(
        first.addressing,
        Addressing::Static(StaticAddress {
            address: "38.108.181.238/24".parse().unwrap(),
            gateway: Some("38.108.181.254".parse().unwrap()),
            dns: vec!["8.8.8.8".parse().unwrap()],
            ntp: vec!["38.108.181.254".to_owned()],
        })
    );
    assert_eq!((first.options.domain.as_str(), &first.options.proxy), ("example.com", &None));
    assert_eq!((second.management, &second.addressing), (true, &Addressing::Dhcp));
}

#[test]
fn a_port_has_all_that_eve_gives_it() {
    let found = beside(
        r#""IfName": "enp3s0", "Logicallabel": "field", "Phylabel": "x", "Alias": "for apps",
           "ismgmt": false, "dhcp": 0, "Cost": 7, "MTU": 9000, "Type": 7, "IsL3Port": false,
           "SharedLabels": ["all", "plant", "uplink"], "AllowLocalModifications": true,
           "IgnoreDhcpDNSConfig": true, "WirelessCfg": {"WType": 0}, "L2Type": 0,
           "NetworkProxyEnable": true, "NetworkProxyURL": "http://p/wpad.dat", "Exceptions": "a,b",
           "Proxies": [{"Type": 1, "server": "http://my-proxy.sdn", "Port": 9091}],
           "pubsub-large-ProxyCertPEM": ["UEVN"]"#,
    );
    assert!(found.refused.is_empty(), "{:?}", found.refused);
    let proxy = Proxy {
        discover: true,
        servers: vec![ProxyServer {
            protocol: ProxyProtocol::Https,
            host: "http://my-proxy.sdn".to_owned(),
            port: 9091,
        }],
        exceptions: "a,b".to_owned(),
        pac: String::new(),
        url: "http://p/wpad.dat".to_owned(),
        trust: vec!["PEM".to_owned()],
    };
    assert_eq!(
        found.ports[&PortName::new("field").unwrap()],
        Port {
            name: PortName::new("field").unwrap(),
            interface: "enp3s0".to_owned(),
            management: false,
            cost: 7,
            addressing: Addressing::None,
            mtu: Some(9000),
            below: String::new(),
            link: Link::Ethernet,
            options: PortOptions {
                family: Family::V6Only,
                alias: "for apps".to_owned(),
                shared_labels: vec!["plant".to_owned()],
                local_changes: true,
                ignore: DhcpIgnore { dns: true, ..DhcpIgnore::default() },
                proxy: Some(proxy),
                ..PortOptions::default()
            },
        }
    );
}

#[test]
fn before_version_1_every_port_was_for_management() {
    let found = read(r#"{"Ports": [{"IfName": "eth0", "Dhcp": 4, "Gateway": null}]}"#);
    assert!(found.ports.values().all(|port| port.management));
    assert_eq!(found.made, None);
    refuses_all(
        r#"{"Version": 1, "Ports": [{"IfName": "eth0", "Dhcp": 4}]}"#,
        "none is a good port for management; the first that is not: IsMgmt: none has it",
    );
}

#[test]
fn without_dns_servers_the_gateway_is_asked() {
    let found =
        beside(r#""IfName": "eth1", "Dhcp": 1, "AddrSubnet": "10.0.0.2/8", "Gateway": "10.0.0.1""#);
    let port = &found.ports[&PortName::new("eth1").unwrap()];
    let Addressing::Static(fixed) = &port.addressing else { panic!("{port:?}") };
    assert_eq!(fixed.dns, ["10.0.0.1".parse::<IpAddr>().unwrap()]);
}

#[test]
fn a_bad_port_is_left_out_and_the_others_count() {
    refuses(r#""Dhcp": 4"#, r#"Ports[1].IfName: "" is not the name of an interface"#);
    refuses(r#""IfName": "a/b", "Dhcp": 4"#, r#"Ports[1].IfName: "a/b""#);
    refuses(r#""IfName": "eth1", "Logicallabel": "../x", "Dhcp": 4"#, "Ports[1].Logicallabel");
    refuses(r#""IfName": "eth0", "Logicallabel": "b", "Dhcp": 4"#, "another port stands on it");
    refuses(r#""IfName": "eth1", "Logicallabel": "eth0", "Dhcp": 4"#, "another port has it too");
    refuses(r#""IfName": "eth1", "IsMgmt": true"#, "Ports[1].Dhcp: a management port needs");
    refuses(r#""IfName": "eth1", "Dhcp": 3"#, r#"Ports[1].Dhcp: "3" is not static (1)"#);
    refuses(r#""IfName": "eth1", "Dhcp": "4""#, "Ports[1].Dhcp");
    refuses(r#""IfName": "eth1", "Dhcp": 1"#, r#"Ports[1].AddrSubnet: "" is not an address"#);
    refuses(r#""IfName": "eth1", "Dhcp": 1, "AddrSubnet": "fe80::1/64""#, "Ports[1].AddrSubnet");
    refuses(
        r#""IfName": "eth1", "Dhcp": 1, "AddrSubnet": "10.0.0.2/8", "Gateway": "x""#,
        r#"Ports[1].Gateway: "x" is not"#,
    );
    refuses(
        r#""IfName": "eth1", "Dhcp": 4, "DnsServers": ["1.1.1.1", "one"]"#,
        r#"Ports[1].DnsServers[1]: "one" is not an IP address"#,
    );
    refuses(r#""IfName": "eth1", "Dhcp": 4, "Cost": 256"#, r#"Ports[1].Cost: "256""#);
    refuses(r#""IfName": "eth1", "Dhcp": 4, "MTU": 100"#, r#"Ports[1].mtu: "100""#);
    refuses(r#""IfName": "eth1", "Dhcp": 4, "Type": 8"#, r#"Ports[1].Type: "8""#);
    refuses(r#""IfName": "eth1", "L2Type": 1"#, "Ports[1].L2Type: VLANs and bonds");
    refuses(
        r#""IfName": "wlan0", "Dhcp": 4, "WirelessCfg": {"WType": 2, "Wifi": []}"#,
        "Ports[1].WirelessCfg.WType: only wired ports",
    );
    refuses(
        r#""IfName": "eth1", "Dhcp": 4, "Proxies": [{"Type": 4, "Server": "p"}]"#,
        r#"Ports[1].Proxies[0].Type: "4""#,
    );
    refuses(
        r#""IfName": "eth1", "Dhcp": 4, "pubsub-large-ProxyCertPEM": ["%"]"#,
        "ProxyCertPEM[0]: it is no base64",
    );
    refuses(
        r#""IfName": "eth1", "Dhcp": 4, "SharedLabels": ["eth0"]"#,
        r#"Ports[1].SharedLabels[0]: "eth0" is not a label of its own"#,
    );
}

#[test]
fn what_is_no_such_file_is_refused_as_a_whole() {
    refuses_all("not JSON", "it is no JSON");
    refuses_all(r#"{"Ports": {}}"#, r#"Ports: "{}" is not a list"#);
    refuses_all(r#"{"Ports": [7]}"#, "Ports[0]: it is no object");
    refuses_all(r#"{"TimePriority": "soon", "Ports": [{}]}"#, r#"TimePriority: "soon""#);
    refuses_all(r#"{"Ports": [{"Dhcp": 4}]}"#, "the first that is not: Ports[0].IfName");
    refuses_all(
        r#"{"Ports": [{"IfName": "a", "IsL3Port": true}, {"IfName": "b", "Dhcp": 4}]}"#,
        "Ports[0].Dhcp: a management port needs an address",
    );
    for empty in ["", "{}", r#"{"Ports": null}"#, r#"{"Version": 1, "Ports": []}"#] {
        assert_eq!(ports(empty.as_bytes()).unwrap(), None, "{empty:?}");
    }
}

#[test]
fn the_time_before_all_times_is_none() {
    let found = read(
        r#"{"TimePriority": "0001-01-01T00:00:00Z", "Ports": [{"IfName": "eth0", "Dhcp": 4}]}"#,
    );
    assert_eq!(found.made, None);
}
