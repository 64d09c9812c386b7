//! A config, published as topics.

use host::topics::{Roots, Table, TopicError, Writer};
use model::desired::{Device, LocalPower, Properties};
use model::topic::{
    DesiredApps, DesiredContents, DesiredDatastores, DesiredNetworkInstances, DesiredPorts,
    DesiredPower, DesiredProperties, DesiredVolumes, LocalPowers, Only,
};

/// All topics that say what the node should be.
#[derive(Debug)]
pub(super) struct Desired {
    properties: Writer<DesiredProperties>,
    power: Writer<DesiredPower>,
    ports: Writer<DesiredPorts>,
    datastores: Writer<DesiredDatastores>,
    contents: Writer<DesiredContents>,
    volumes: Writer<DesiredVolumes>,
    networks: Writer<DesiredNetworkInstances>,
    apps: Writer<DesiredApps>,
    local_power: Writer<LocalPowers>,
}

impl Desired {
    /// Opens them; none is complete before the first config.
    pub(super) fn open(roots: &Roots) -> Result<Desired, TopicError> {
        Ok(Desired {
            properties: Writer::open(roots)?,
            power: Writer::open(roots)?,
            ports: Writer::open(roots)?,
            datastores: Writer::open(roots)?,
            contents: Writer::open(roots)?,
            volumes: Writer::open(roots)?,
            networks: Writer::open(roots)?,
            apps: Writer::open(roots)?,
            local_power: Writer::open(roots)?,
        })
    }

    /// Publishes what of a config counts in maintenance too: settings and counters.
    pub(super) fn publish_settings(
        &mut self,
        device: &Device,
        properties: &Properties,
    ) -> Result<(), TopicError> {
        self.properties.publish(Table::<DesiredProperties>::from([(Only, properties.clone())]))?;
        self.power.publish(Table::<DesiredPower>::from([(Only, device.power)]))
    }

    /// Publishes what someone near the node commands.
    pub(super) fn publish_local_power(
        &mut self,
        power: Option<LocalPower>,
    ) -> Result<(), TopicError> {
        let rows = power.into_iter().map(|power| (Only, power));
        self.local_power.publish(rows.collect::<Table<LocalPowers>>())
    }

    /// Publishes what counts before the first config: settings, and ports if anybody wished some.
    pub(super) fn publish_first(
        &mut self,
        properties: &Properties,
        ports: Option<&Table<DesiredPorts>>,
    ) -> Result<(), TopicError> {
        self.properties.publish(Table::<DesiredProperties>::from([(Only, properties.clone())]))?;
        ports.map_or(Ok(()), |ports| self.ports.publish(ports.clone()))
    }

    /// Publishes a whole config: what is referred to before what refers to it, so that fewer
    /// services find something missing for a moment.
    pub(super) fn publish(
        &mut self,
        device: &Device,
        properties: &Properties,
    ) -> Result<(), TopicError> {
        self.publish_settings(device, properties)?;
        self.datastores.publish(device.datastores.clone())?;
        self.ports.publish(device.ports.clone())?;
        self.networks.publish(device.network_instances.clone())?;
        self.contents.publish(device.contents.clone())?;
        self.volumes.publish(device.volumes.clone())?;
        self.apps.publish(device.apps.clone())
    }
}
