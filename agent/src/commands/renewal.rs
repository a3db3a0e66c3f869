//! `enroll --new-identity`: a device that was copied becomes one of its own.
//!
//! The former identity stays in its place until the hub has taken the new one
//! in, so that a no, or a power cut, leaves the device what it was; asking
//! again goes on where it ended. What is given up: the key, the name that was
//! made of the former device's parts, and reports that wait, which may be the
//! other one's.

use std::fs::File;
use std::path::PathBuf;

use ed25519_dalek::SigningKey;

use super::enroll::EnrollError;
use crate::config::made_anew;
use crate::config::settings::{DeviceSettings, HubSettings, Settings};
use crate::journal;
use crate::ports::clock::Clock;
use crate::ports::uplink::UplinkError;
use crate::uplink::{
    Enrolment, device_key, enrolment, enrolment_path, give_up, keep_enrolment, keep_name, key_path, make_device_key,
};

/// The new identity on its way.
pub(super) struct Renewal {
    /// No agent may run with the former one meanwhile.
    _held: File,
    store: PathBuf,
    pub(super) device: DeviceSettings,
    pub(super) key: SigningKey,
    former: Option<(SigningKey, Enrolment)>,
}

impl Renewal {
    /// Makes the new key, beside the former one.
    ///
    /// # Errors
    /// When the agent runs, no name can be made, or the store can't be written.
    pub(super) fn begin(settings: &Settings) -> Result<Self, EnrollError> {
        let store = settings.store.path.clone();
        let held = journal::hold(&store).map_err(EnrollError::Held)?;
        let mut device = settings.device.clone();
        if let Some(pattern) = &device.made_from {
            device.name = made_anew(pattern).map_err(EnrollError::Unnamed)?;
        }
        let key = make_device_key(&store.join("next"))?;
        // A former identity that can't be read can't be told of, either.
        let former = device_key(&store).ok().flatten().zip(enrolment(&store).ok().flatten());
        Ok(Self { _held: held, store, device, key, former })
    }

    /// Puts the new identity in the place of the former one, after a last word
    /// of that. What is worth telling.
    ///
    /// # Errors
    /// When the store can't be written.
    pub(super) async fn settle(
        self,
        enrolment: &Enrolment,
        hub: &HubSettings,
        clock: &impl Clock,
    ) -> Result<Vec<String>, EnrollError> {
        let mut told = Vec::new();
        if let Some((key, former)) = self.former.filter(|(key, _)| key.to_bytes() != self.key.to_bytes()) {
            let hub = HubSettings { url: former.hub.clone(), ..hub.clone() };
            told.push(match give_up(&hub, &key, &former, &enrolment.device, clock.now()).await {
                Ok(()) => format!("the hub knows that this device is {} no more", former.device),
                // Removed at the hub, or out of reach: its flag fades by itself.
                Err(error) => format!("note: the hub was not told that {} is given up: {error}", former.device),
            });
        }
        let next = self.store.join("next");
        keep_enrolment(&next, enrolment)?;
        // The key last: until it is moved, asking again goes on from here.
        for (from, to) in
            [(enrolment_path(&next), enrolment_path(&self.store)), (key_path(&next), key_path(&self.store))]
        {
            let moved = std::fs::rename(&from, &to).and_then(|()| File::open(&self.store)?.sync_all());
            moved.map_err(|source| UplinkError::Store { action: "write", path: to, source })?;
        }
        let spool = self.store.join("spool");
        let waiting = std::fs::read_dir(&spool).map_or(0, Iterator::count);
        for folder in [next, spool] {
            match std::fs::remove_dir_all(&folder) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(UplinkError::Store { action: "remove", path: folder, source }.into());
                }
                _ => {}
            }
        }
        if waiting > 0 {
            told.push(format!("{waiting} reports of the former identity are dropped"));
        }
        keep_name(&self.store, &self.device)?;
        Ok(told)
    }
}
