//! `/lobby`: devices that proved their key and wait for an operator.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::part;
use super::{Place, failed, layout};
use crate::clock;
use crate::hub::SharedHub;
use crate::keys::sha256;
use crate::store::{Device, DeviceFilter, DeviceState, Store};

pub(super) async fn page(State(hub): State<SharedHub>) -> Response {
    let filter = DeviceFilter { state: Some(DeviceState::Lobby), limit: 500, ..DeviceFilter::default() };
    match hub.store.devices(&filter).await {
        Ok(devices) => layout(&hub, "Lobby", Place::Lobby, &lobby(&devices)).into_response(),
        Err(error) => failed(&hub, &error),
    }
}

/// The same fingerprint that the device prints when it enrols.
pub(super) fn fingerprint(device: &Device) -> String {
    match ed25519_dalek::VerifyingKey::from_bytes(&device.key) {
        Ok(key) => fleet::wire::key::fingerprint(&key),
        Err(_) => format!("unusable {}", crate::keys::hex(&sha256(&device.key)[..6])),
    }
}

fn lobby(devices: &[Device]) -> Markup {
    let now = clock::now();
    html! {
        div.title {
            h1 { "Lobby" }
            p.sub { "Devices that ask to join. Compare the fingerprint with what the device prints, then accept it." }
        }
        div id="lobby" data-live {
            @if devices.is_empty() {
                section.card.empty {
                    h2 { "Nobody waits" }
                    p { "A device comes here if its join token says so:" }
                    (part::typed(&["burgee-hub --config hub.toml token create --lobby"]))
                }
            } @else {
                ul.waiting {
                    @for device in devices {
                        li.card {
                            h2 { (device.name) " " small { "asked " (part::ago(device.enrolled, now)) } }
                            dl.facts {
                                dt { "Key" } dd { code { (fingerprint(device)) } }
                                dt { "Labels" }
                                dd {
                                    @for (key, value) in &device.labels { span.label { (key) "=" (value) } " " }
                                    @if device.labels.is_empty() { "none" }
                                }
                            }
                            @let accept = format!("burgee-hub --config hub.toml device accept {}", device.name);
                            @let remove = format!("burgee-hub --config hub.toml device remove {}", device.name);
                            (part::typed(&[&accept, &remove]))
                        }
                    }
                }
            }
        }
    }
}
