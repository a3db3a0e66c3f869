//! `burgee-hub device`.

use fleet::name::DeviceName;
use jiff::{SignedDuration, Timestamp};

use super::{Config, Device, Failure, columns, say, store_failed, wake};
use crate::clock;
use crate::page::utc;
use crate::store::{DeviceFilter, DeviceState, HubStore, Store};

pub(super) async fn run(store: &HubStore, config: &Config, asked: Device) -> Result<(), Failure> {
    match asked {
        Device::List { search } => list(store, config, search).await,
        Device::Clear { device } => {
            let done = store.forget_runs(&device).await.map_err(|error| store_failed(&error))?;
            wake(config);
            if !done {
                return Err(Failure::plain(format!("no device {device} is in the lobby or the fleet"))
                    .hint("burgee-hub device list shows them"));
            }
            say(&format!("cleared {device}; if two agents still have its key, that is found again"));
            Ok(())
        }
        Device::Accept { device } => {
            set(store, config, &device, DeviceState::Accepted).await?;
            say(&format!("accepted {device}; it asks again within seconds"));
            Ok(())
        }
        Device::Remove { device } => {
            set(store, config, &device, DeviceState::Removed).await?;
            say(&format!("removed {device}; its key counts for nothing from now on"));
            Ok(())
        }
    }
}

async fn set(store: &HubStore, config: &Config, device: &DeviceName, state: DeviceState) -> Result<(), Failure> {
    let done = store.set_state(device, state, clock::now()).await.map_err(|error| store_failed(&error))?;
    wake(config);
    if done {
        Ok(())
    } else {
        Err(Failure::plain(format!("no device {device} is in the lobby or the fleet"))
            .hint("burgee-hub device list shows them; a removed device enrols again with a new token"))
    }
}

async fn list(store: &HubStore, config: &Config, search: String) -> Result<(), Failure> {
    let filter = DeviceFilter { search: Some(search), ..DeviceFilter::default() };
    let devices = store.devices(&filter).await.map_err(|error| store_failed(&error))?;
    if devices.is_empty() {
        say("no device matches\nhint: burgee-hub token create makes a token that lets one join");
        return Ok(());
    }
    let head = ["NAME", "STATE", "SYNC", "HEALTH", "LAST REPORT", "REVISION"].map(str::to_owned).to_vec();
    let silent = SignedDuration::try_from(config.silent_after).unwrap_or(SignedDuration::MAX);
    let silent_before = clock::now().saturating_sub(silent).unwrap_or(Timestamp::MIN);
    let rows = devices.iter().map(|device| {
        let copied = if device.twin(silent_before).is_some() { ", copied" } else { "" };
        let revision = device.status.as_ref().and_then(|status| status.revision.as_ref());
        vec![
            device.name.to_string(),
            format!("{}{copied}", device.state.as_str()),
            device.sync.as_str().to_owned(),
            device.health.as_str().to_owned(),
            device.last_seen.map_or_else(|| "never".to_owned(), utc),
            revision.map_or_else(|| "-".to_owned(), |id| id.short().to_owned()),
        ]
    });
    columns(&std::iter::once(head).chain(rows).collect::<Vec<_>>())
}
