//! What a device is by its hardware and its system: what names and
//! fingerprints are made of. Reads, and never fails: a fact that can't be had
//! is missing.

use std::path::{Path, PathBuf};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The board's or the product's serial number.
    pub serial: Option<String>,
    /// The burned-in address of the first physical network interface, `aa:bb:…`.
    pub mac: Option<String>,
    /// `/etc/machine-id`.
    pub machine_id: Option<String>,
    /// The host's name up to the first dot.
    pub host: Option<String>,
}

/// What firmware says where nobody filled a number in.
const FILLERS: [&str; 12] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "system serial number",
    "default string",
    "default",
    "not specified",
    "not applicable",
    "not available",
    "none",
    "n/a",
    "unknown",
    "invalid",
];

impl Facts {
    /// Those of this device; `root` is `/` but in tests.
    #[must_use]
    pub fn read(root: &Path) -> Self {
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let serials = [
            "sys/firmware/devicetree/base/serial-number",
            "proc/device-tree/serial-number",
            "sys/class/dmi/id/product_serial",
        ];
        Self {
            serial: serials.iter().find_map(|path| text(&root.join(path)).filter(|text| is_serial(text))),
            mac: mac(&root.join("sys/class/net")),
            machine_id: text(&root.join("etc/machine-id")).filter(|id| id != "uninitialized"),
            host: host.split('.').next().filter(|host| !host.is_empty()).map(str::to_owned),
        }
    }

    /// 16 hex digits that tell this machine from another, and nothing of it;
    /// `None` where nothing does.
    #[must_use]
    pub fn fingerprint(&self) -> Option<String> {
        let parts = [&self.machine_id, &self.serial, &self.mac];
        if parts.iter().all(|part| part.is_none()) {
            return None;
        }
        let digest = fleet::digest::Digest::of(format!("burgee machine\n{parts:?}").as_bytes()).to_string();
        digest.rsplit(':').next().and_then(|hex| hex.get(..16)).map(str::to_owned)
    }
}

/// A file's text without the NUL that device trees end with.
fn text(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let text = text.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (!text.is_empty()).then(|| text.to_owned())
}

fn is_serial(text: &str) -> bool {
    !FILLERS.contains(&text.to_ascii_lowercase().as_str())
        && text.chars().any(|c| c.is_ascii_alphanumeric() && c != '0')
}

/// Wired before wireless, then by name. One that is drawn anew at every boot,
/// or was set by hand, tells no device from the next.
fn mac(folder: &Path) -> Option<String> {
    let mut found: Vec<(bool, PathBuf)> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.join("device").exists())
        .filter(|path| text(&path.join("addr_assign_type")).as_deref() == Some("0"))
        .map(|path| (path.join("wireless").exists() || path.join("phy80211").exists(), path))
        .collect();
    found.sort();
    found.iter().find_map(|(_, path)| {
        let address = text(&path.join("address"))?;
        (address.len() == 17 && address.chars().any(|c| c != '0' && c != ':')).then_some(address)
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::Facts;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    #[test]
    fn facts_are_read_as_the_kernel_shows_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let none = Facts::read(root);
        assert_eq!((none.serial, none.mac, none.machine_id), (None, None, None));

        write(root, "sys/class/dmi/id/product_serial", "To be filled by O.E.M.\n");
        write(root, "etc/machine-id", "uninitialized\n");
        for (name, kind, address) in [
            ("br0", "3", "02:00:00:00:00:01"),
            ("eth1", "0", "b8:27:eb:00:00:02"),
            ("usb0", "1", "02:00:00:00:00:03"),
            ("wlan0", "0", "b8:27:eb:00:00:04"),
        ] {
            write(root, &format!("sys/class/net/{name}/address"), &format!("{address}\n"));
            write(root, &format!("sys/class/net/{name}/addr_assign_type"), &format!("{kind}\n"));
            if name != "br0" {
                write(root, &format!("sys/class/net/{name}/device/uevent"), "");
            }
        }
        write(root, "sys/class/net/wlan0/wireless/x", "");
        let facts = Facts::read(root);
        assert_eq!((facts.serial, facts.machine_id), (None, None));
        assert_eq!(facts.mac.as_deref(), Some("b8:27:eb:00:00:02"), "wired, physical, burned in");

        write(root, "sys/class/dmi/id/product_serial", "PF2X8K1\n");
        assert_eq!(Facts::read(root).serial.as_deref(), Some("PF2X8K1"));
        write(root, "sys/firmware/devicetree/base/serial-number", "10000000a1b2c3d4\0");
        write(root, "etc/machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4\n");
        let facts = Facts::read(root);
        assert_eq!(facts.serial.as_deref(), Some("10000000a1b2c3d4"), "the board's own goes first");
        assert!(facts.machine_id.is_some());
        let id = facts.fingerprint().unwrap();
        assert!(id.len() == 16 && Some(&id) == Facts::read(root).fingerprint().as_ref());
        let other = Facts { mac: None, ..facts };
        assert!(other.fingerprint().is_some_and(|other| other != id) && Facts::default().fingerprint().is_none());
    }
}
