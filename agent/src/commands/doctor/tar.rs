//! A tar archive (POSIX ustar) of small texts. Pure: names and bytes in, bytes
//! out.

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
}

/// Headers and contents come in blocks of this size.
const BLOCK: usize = 512;

impl Archive {
    /// Adds a regular file, mode 0600. `name`: up to 100 bytes; a longer one
    /// is cut. `at`: seconds since 1970.
    pub(super) fn add(&mut self, name: &str, content: &[u8], at: u64) {
        let mut header = [0_u8; BLOCK];
        let mut put = |from: usize, text: &[u8]| {
            for (place, byte) in header.iter_mut().skip(from).zip(text) {
                *place = *byte;
            }
        };
        put(0, name.as_bytes().get(..name.len().min(100)).unwrap_or_default());
        put(100, b"0000600\0");
        put(108, b"0000000\0");
        put(116, b"0000000\0");
        put(124, format!("{:011o}\0", content.len()).as_bytes());
        put(136, format!("{:011o}\0", at & 0o77_777_777_777).as_bytes());
        // The checksum is made over spaces in its own place.
        put(148, b"        ");
        put(156, b"0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        for (place, byte) in header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()) {
            *place = byte;
        }
        self.bytes.extend_from_slice(&header);
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(BLOCK), 0);
    }

    /// The whole archive.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.bytes.resize(self.bytes.len() + 2 * BLOCK, 0);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::Archive;

    #[test]
    fn tar_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut archive = Archive::default();
        let long = vec![b'x'; 1000];
        for (name, content) in [("a/empty", &b""[..]), ("a/text", b"hello\n"), ("a/long", &long)] {
            archive.add(name, content, 1_780_000_000);
        }
        let path = folder.path().join("a.tar");
        std::fs::write(&path, archive.end()).unwrap();
        let done = Command::new("tar").arg("-xf").arg(&path).arg("-C").arg(folder.path()).output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{}", String::from_utf8_lossy(&done.stderr));
        assert_eq!(std::fs::read(folder.path().join("a/empty")).unwrap(), b"");
        assert_eq!(std::fs::read(folder.path().join("a/text")).unwrap(), b"hello\n");
        assert_eq!(std::fs::read(folder.path().join("a/long")).unwrap(), long);
    }
}
