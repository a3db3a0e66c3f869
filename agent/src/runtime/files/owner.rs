//! Owners by name: `/etc/passwd` and `/etc/group` are read as text, because a
//! static binary has no name service. Users of a directory (LDAP, systemd-homed)
//! are given by number.

use std::path::Path;

use crate::ports::runtime::RuntimeError;

/// A user's and a group's number.
pub(super) type Owner = (u32, u32);

/// The names of this device.
#[derive(Debug, Default)]
pub(super) struct Names {
    passwd: String,
    group: String,
}

impl Names {
    /// Those of the root, if it has any, else those that the agent lives by.
    pub(super) fn read(root: &Path) -> Result<Self, RuntimeError> {
        let read = |name: &str| -> Result<String, RuntimeError> {
            let own = root.join("etc").join(name);
            let path = if own.exists() { own } else { Path::new("/etc").join(name) };
            match std::fs::read_to_string(&path) {
                Ok(text) => Ok(text),
                // A container from scratch has none; numbers work there.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
                Err(error) => Err(RuntimeError::Observe { what: path.display().to_string(), source: Box::new(error) }),
            }
        };
        Ok(Self { passwd: read("passwd")?, group: read("group")? })
    }

    /// `user`, `user:group` or `:group`, each a name or a number; what is not
    /// said is the user's own group, or the agent's own.
    pub(super) fn resolve(&self, path: &str, owner: Option<&str>) -> Result<Owner, RuntimeError> {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let Some(owner) = owner else { return Ok(own) };
        let refuse = |cause: String| RuntimeError::Refused {
            object: format!("file/{path}"),
            cause,
            hint: Some("make the user or group on the device first, or give its number".to_owned()),
        };
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let (uid, primary) = match (user, user.parse::<u32>()) {
            ("", _) => own,
            (_, Ok(uid)) => (uid, self.primary(|fields| fields[2] == user).map_or(own.1, |(_, gid)| gid)),
            _ => self
                .primary(|fields| fields[0] == user)
                .ok_or_else(|| refuse(format!("its owner {user:?} is no user of this device")))?,
        };
        let gid = match (group, group.parse::<u32>()) {
            ("", _) => primary,
            (_, Ok(gid)) => gid,
            _ => lines(&self.group, 3)
                .find(|fields| fields[0] == group)
                .and_then(|fields| fields[2].parse().ok())
                .ok_or_else(|| refuse(format!("its group {group:?} is no group of this device")))?,
        };
        Ok((uid, gid))
    }

    fn primary(&self, mut is: impl FnMut(&[&str]) -> bool) -> Option<Owner> {
        let fields = lines(&self.passwd, 4).find(|fields| is(fields))?;
        Some((fields[2].parse().ok()?, fields[3].parse().ok()?))
    }
}

fn lines(text: &str, at_least: usize) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(move |fields| fields.len() >= at_least)
}

#[cfg(test)]
mod tests {
    use super::Names;

    #[test]
    fn owners() {
        let names = Names {
            passwd: "root:x:0:0:root:/root:/bin/sh\npos:x:990:985::/:/usr/sbin/nologin\nbroken\n".into(),
            group: "root:x:0:\nkiosk:x:77:pos\n".into(),
        };
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let cases = [
            (None, Some(own)),
            (Some("root:root"), Some((0, 0))),
            (Some("pos"), Some((990, 985))),
            (Some("pos:kiosk"), Some((990, 77))),
            (Some("990"), Some((990, 985))),
            (Some("5:6"), Some((5, 6))),
            (Some(":kiosk"), Some((own.0, 77))),
            (Some("nobody-here"), None),
            (Some("pos:nothing"), None),
        ];
        for (owner, want) in cases {
            assert_eq!(names.resolve("/a", owner).ok(), want, "{owner:?}");
        }
    }
}
