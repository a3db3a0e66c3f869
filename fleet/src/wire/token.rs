//! Device tokens: short-lived proof that a device holds its key, used as HTTP
//! bearer and as password for MQTT and Git.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::name::{DeviceName, FleetName};

/// How long a token that an agent makes is good for.
pub const TOKEN_LIFE: SignedDuration = SignedDuration::from_mins(10);
/// How far the clocks of device and hub may lie apart.
pub const TOKEN_LEEWAY: SignedDuration = SignedDuration::from_mins(5);
/// The longest life that is accepted, whatever the token says of itself.
pub const TOKEN_MAX_LIFE: SignedDuration = SignedDuration::from_hours(24);

/// The content of a [`super::jws::Kind::Token`], signed by the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceToken {
    pub fleet: FleetName,
    pub device: DeviceName,
    pub issued: Timestamp,
    pub expires: Timestamp,
    pub audience: Audience,
}

/// What a token opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Audience {
    /// The hub's agent API.
    Hub,
    Mqtt,
    Git,
}

/// Why a token whose signature holds is no good here and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("it is for something else")]
    Audience,
    #[error("it has expired; is the device's clock set?")]
    Expired,
    #[error("it is from the future; is the device's clock set?")]
    Early,
    #[error("it lives longer than a day")]
    Life,
}

impl DeviceToken {
    /// A token for `audience`, good from `now` on.
    #[must_use]
    pub fn new(fleet: FleetName, device: DeviceName, audience: Audience, now: Timestamp) -> Self {
        Self { fleet, device, issued: now, expires: now.saturating_add(TOKEN_LIFE).unwrap_or(now), audience }
    }

    /// Whether it opens `audience` at `now`. Its fleet and device are for the
    /// caller to compare with the key's.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, audience: Audience, now: Timestamp) -> Result<(), TokenError> {
        if self.audience != audience {
            Err(TokenError::Audience)
        } else if self.expires.duration_since(self.issued) > TOKEN_MAX_LIFE {
            Err(TokenError::Life)
        } else if now.duration_since(self.expires) > TOKEN_LEEWAY {
            Err(TokenError::Expired)
        } else if self.issued.duration_since(now) > TOKEN_LEEWAY {
            Err(TokenError::Early)
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};

    use super::{Audience, DeviceToken, TokenError};

    fn check(name: &str, issued: i64, expires: i64, audience: Audience, want: Result<(), TokenError>) {
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let at = |minutes| now + SignedDuration::from_mins(minutes);
        let token = DeviceToken {
            fleet: "retail".parse().unwrap(),
            device: "a".parse().unwrap(),
            issued: at(issued),
            expires: at(expires),
            audience: Audience::Hub,
        };
        assert_eq!(token.check(audience, now), want, "{name}");
    }

    #[test]
    fn checks() {
        check("fresh", 0, 10, Audience::Hub, Ok(()));
        check("the clocks differ a little", -14, -4, Audience::Hub, Ok(()));
        check("the device is a little ahead", 4, 14, Audience::Hub, Ok(()));
        check("old", -20, -6, Audience::Hub, Err(TokenError::Expired));
        check("early", 6, 16, Audience::Hub, Err(TokenError::Early));
        check("for ever", 0, 60 * 25, Audience::Hub, Err(TokenError::Life));
        check("for Git", 0, 10, Audience::Git, Err(TokenError::Audience));
    }
}
