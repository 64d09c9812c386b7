//! Networks of this machine: interfaces, addresses and routes, namespaces, packet filter, DHCP and
//! DNS on the wire.
