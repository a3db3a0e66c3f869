//! Device tokens: which device is it that speaks?

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::VerifyingKey;
use fleet::name::{DeviceName, FleetName};
use fleet::wire::jws::{self, Kind};
use fleet::wire::token::{Audience, DeviceToken};
use jiff::Timestamp;

use crate::store::{Device, DeviceState, Store, StoreError};

/// Whose token `text` says it is. Nothing is verified.
fn claimed(text: &str) -> Option<DeviceName> {
    if text.len() > Kind::Token.limit() {
        return None;
    }
    let payload = URL_SAFE_NO_PAD.decode(text.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<DeviceToken>(&payload).ok().map(|token| token.device)
}

/// The accepted device whose key signed `text` for `audience`, or why there is none.
///
/// # Errors
/// When the store does not answer.
pub async fn authenticate<S: Store>(
    store: &S,
    fleet: &FleetName,
    text: &str,
    audience: Audience,
    now: Timestamp,
) -> Result<Result<Device, &'static str>, StoreError> {
    let Some(name) = claimed(text) else { return Ok(Err("TokenMalformed")) };
    let Some(device) = store.device(&name).await? else { return Ok(Err("TokenUnknownDevice")) };
    Ok(check(&device, fleet, text, audience, now).map(|()| device))
}

fn check(
    device: &Device,
    fleet: &FleetName,
    text: &str,
    audience: Audience,
    now: Timestamp,
) -> Result<(), &'static str> {
    if device.state != DeviceState::Accepted {
        return Err("TokenNotAccepted");
    }
    let key = VerifyingKey::from_bytes(&device.key).map_err(|_| "TokenSignature")?;
    let token: DeviceToken = jws::verify(Kind::Token, text, &key).map_err(|_| "TokenSignature")?;
    if token.device != device.name || token.fleet != *fleet {
        return Err("TokenOtherDevice");
    }
    token.check(audience, now).map_err(|_| "TokenTime")
}
