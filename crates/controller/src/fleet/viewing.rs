//! EdgeView sessions: a person looks into a node for a while.
//!
//! The controller only signs the token that both sides bring to the dispatcher, and tells the node of
//! it in its config; what is looked at never comes by here.

use std::time::Duration;

use api::edgeview::{Claims, issue};
use model::{Secret, UnixMillis};
use uuid::Uuid;

use super::{Fleet, FleetError, Known};
use crate::access::random;
use crate::objects::{Key, Kind, Session};
use crate::view;

impl Known {
    /// The session of a node that is open at this time.
    pub(super) fn session(&self, id: Uuid, now: UnixMillis) -> Option<Session> {
        let row = self.device(id)?;
        let (token, until) = row.view.as_ref()?;
        (*until > now).then(|| Session { token: token.clone(), generation: row.views })
    }
}

impl Fleet {
    /// Opens a session into a node; one that was open ends.
    pub(crate) async fn open_view(
        &self,
        name: &str,
        new: &view::NewSession,
        author: &str,
    ) -> Result<view::Session, FleetError> {
        let none = || FleetError::NoObject(Key::new(Kind::Device, name));
        let id = self.look(|known| known.device_object(name).map(|o| o.object.uid));
        let id = id.ok_or_else(none)?;
        // The token counts in whole seconds.
        let wanted = self.now().after(Duration::from_secs(u64::from(new.minutes) * 60));
        let expires = wanted.0 / 1000;
        let until = UnixMillis(expires * 1000);
        let claims = Claims {
            dispatcher: new.dispatcher.trim().to_owned(),
            device: id.to_string(),
            expires,
            key: hex::encode(random::<16>()?),
            instances: new.instances,
            encrypted: true,
            authentication: 0,
        };
        let token = Secret::new(issue(&claims, &self.signing)?);
        let open = |row: &mut crate::db::DeviceRow| {
            row.views = row.views.saturating_add(1);
            row.view = Some((token.clone(), until));
        };
        self.change_device(name, "EdgeView session opened", author, open).await?;
        let views = self.look(|known| known.device(id).map(|row| row.views)).ok_or_else(none)?;
        Ok(view::Session { token, until, generation: views })
    }
}
